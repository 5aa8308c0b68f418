"""Testcontainers as a test suite uses it: a container that serves, asked at its port, looked into, gone afterwards."""

import time
import urllib.request

from testcontainers.core.container import DockerContainer

with DockerContainer("base").with_command("httpd -f -p 8124 -h /etc").with_exposed_ports(8124) as served:
    page = f"http://{served.get_container_host_ip()}:{served.get_exposed_port(8124)}/hostname"
    for _ in range(200):
        try:
            answer = urllib.request.urlopen(page, timeout=5)
            break
        except OSError:
            time.sleep(0.05)
    print("served:", answer.status, len(answer.read()) > 0)
    code, output = served.exec("id -u")
    print("exec:", code, output.decode().strip())
    name = served.get_wrapped_container().name
print("named:", bool(name))
