"""What agents do with Redis, by redis-py; each part prints what it saw."""

import os
import ssl
import sys
import threading
import time

import redis

HOST = "cache.internal"


def by_name(**more):
    return redis.Redis(host=HOST, username="whoever", password="the-agents-own", decode_responses=True, **more)


def refused(call):
    try:
        return f"got {call()!r}"
    except redis.ResponseError as error:
        return str(error)


def commands(cache):
    print("read:", cache.get("users:1"))
    print("written:", cache.set("agent:1", "one"), cache.get("agent:1"))
    print("refused:", refused(lambda: cache.set("users:1", "two")))
    print("forbidden:", refused(lambda: cache.get("secret:1")))
    print("mixed:", refused(lambda: cache.mget("users:1", "secret:1")).startswith("interceptor: "))
    print("flush:", refused(cache.flushall).startswith("interceptor: "))
    print("unknown:", refused(lambda: cache.execute_command("NONSENSE")).startswith("interceptor: "))
    print("monitor:", refused(lambda: cache.execute_command("MONITOR")).startswith("interceptor: "))
    print("goes on:", cache.get("users:1"), cache.hgetall("users:map"))
    print("wrong type:", refused(lambda: cache.lrange("users:1", 0, -1)).split(" ")[0:3])


def transactions(cache):
    whole = cache.pipeline(transaction=True)
    whole.set("agent:count", 1)
    whole.incr("agent:count")
    print("exec:", whole.execute())
    spoilt = cache.pipeline(transaction=True)
    spoilt.set("agent:count", 100)
    spoilt.set("users:1", "spoilt")
    spoilt.incr("agent:count")
    print("refused in exec:", refused(spoilt.execute).split(": ", 1)[-1][:40])
    print("nothing of it:", cache.get("agent:count"), cache.get("users:1"))


def pipelines(cache):
    many = cache.pipeline(transaction=False)
    for number in range(10_000):
        if number == 5000:
            many.get("secret:1")
        many.incr("agent:many")
    answers = many.execute(raise_on_error=False)
    errors = [place for place, answer in enumerate(answers) if isinstance(answer, Exception)]
    print("pipeline:", len(answers), errors, answers[4999], answers[5001], answers[-1])


def large(cache):
    value = b"x" * (64 << 20)
    raw = redis.Redis(host=HOST, username="whoever", password="whatever")
    print("large:", raw.set("agent:large", value), raw.strlen("agent:large"), raw.get("agent:large") == value)
    print("large refused:", refused(lambda: raw.set("users:large", value)).startswith("interceptor: "))
    print("after it:", raw.get("users:1"), raw.delete("agent:large"))


def subscriptions(cache, protocol):
    heard = cache.pubsub()
    heard.subscribe("news")
    heard.psubscribe("other.*")

    def next_message():
        deadline = time.time() + 10
        while time.time() < deadline:
            message = heard.get_message(timeout=1)
            if message is not None:
                return message["type"], message["channel"], message["data"]
        return None

    print(f"confirmed {protocol}:", next_message(), next_message())
    print(f"published {protocol}:", cache.publish("news", "hello"), cache.publish("other.x", "world"))
    print(f"heard {protocol}:", next_message(), next_message())
    print(f"refused {protocol}:", refused(lambda: cache.publish("secret", "x")).startswith("interceptor: "))
    heard.close()


def blocking(cache):
    later = threading.Timer(0.3, lambda: by_name(protocol=2).rpush("agent:list", "late"))
    later.start()
    print("blocked:", cache.blpop(["agent:list"], timeout=10))
    later.join()


def tls():
    roots = ssl.get_default_verify_paths().cafile or os.environ["SSL_CERT_FILE"]
    cache = by_name(ssl=True, ssl_ca_certs=os.environ.get("SSL_CERT_FILE", roots), protocol=3)
    print("tls:", cache.get("users:1"))


def masked():
    cache = redis.Redis(host="masked.internal", decode_responses=True)
    print("masked:", cache.get("users:mail"), cache.hgetall("users:mails"), cache.get("users:1"))


def local():
    for path in ["/var/run/redis/redis-server.sock", "/run/local/redis.sock"]:
        cache = redis.Redis(unix_socket_path=path, decode_responses=True)
        print("local:", cache.get("users:1"), refused(lambda: cache.set("users:1", "x")).startswith("interceptor: "))


def main():
    for protocol in (2, 3):
        cache = by_name(protocol=protocol)
        commands(cache)
        transactions(cache)
        subscriptions(cache, protocol)
    cache.delete("agent:many")
    pipelines(cache)
    blocking(cache)
    large(cache)
    tls()
    masked()
    local()


main()
sys.stdout.flush()
