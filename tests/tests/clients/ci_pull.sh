# Images that a CI job has its engine fetch. $1 is the client's program, $2 where the registry is. Each line says what came of a thing.
CLIENT="$1" REGISTRY="$2"
docker() { "$CLIENT" "$@" </dev/null 2>&1; }
say() { name="$1"; shift; printf '%s: %s\n' "$name" "$("$@" | tr '\n' ' ')"; }

say pulled docker pull "$REGISTRY/team/base:1"
say used docker run --rm "$REGISTRY/team/base:1" cat /etc/hostname
say asked docker run --rm "$REGISTRY/team/other:1" true
say other docker pull "$REGISTRY/team/other:1"
say missing docker pull "$REGISTRY/team/base:2"
say all docker pull --all-tags "$REGISTRY/team/base"
say imported docker import "http://$REGISTRY/v2/" made
mkdir -p logged-in && printf '{"auths":{"%s":{"auth":"%s"}}}' "$REGISTRY" "$(printf 'somebody:secret' | base64)" > logged-in/config.json
say log-in docker --config logged-in pull "$REGISTRY/team/base:1"
say named docker tag "$REGISTRY/team/base:1" mine
say by-name docker run --rm mine cat /etc/hostname
say unnamed docker rmi mine
say removed docker rmi "$REGISTRY/team/base:1"
say sent docker push "$REGISTRY/team/base:1"

# While nobody can write it down.
touch ready
while [ ! -e stopped ]; do sleep 0.05; done
call() {
    /usr/bin/python3 -c '
import http.client, socket, sys
engine = http.client.HTTPConnection("docker")
engine.sock = socket.socket(socket.AF_UNIX)
engine.sock.connect("/var/run/docker.sock")
engine.request("POST", sys.argv[1], sys.argv[2], {"Content-Type": "application/json"})
answer = engine.getresponse()
print(answer.status, answer.read().decode())' "$@" 2>&1
}
say unrecorded call "/containers/create?name=unrecorded" '{"Image": "base", "Cmd": ["true"]}'
say unjudged call "/images/create?fromImage=$REGISTRY/team/base&tag=1" ''
