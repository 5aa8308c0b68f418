# Images that a CI job builds. $1 is the client's program, $2 the job's name. Each line says what came of a thing.
CLIENT="$1" NAME="$2"
docker() { "$CLIENT" "$@" </dev/null 2>&1; }
say() { name="$1"; shift; printf '%s: %s\n' "$name" "$("$@" | tr '\n' ' ')"; }
DSN="host=db.internal user=whoever password=whatever dbname=orders sslmode=require"

CONTEXT="context-$NAME"
mkdir -p "$CONTEXT/sub"
echo hello > "$CONTEXT/sub/page"
cat > "$CONTEXT/Dockerfile" <<'END'
ARG BASE
FROM ${BASE} AS made
ARG DSN
RUN psql -X -A -t -d "$DSN" \
    # it is captured
    -c "SELECT count(*) FROM users" > /count
RUN nc -w 5 192.0.2.1 81 > /elsewhere || true
RUN grep -E 'CapBnd|Seccomp:' /proc/self/status > /status
COPY . /context
FROM base
ADD sub/page /page
COPY --from=made /count /elsewhere /status /
COPY --from=0 /context /context
END
build() { docker build --build-arg BASE=base --build-arg DSN="$DSN" "$@" "$CONTEXT"; }
say built build -t app:1 -t shared
say again build -t app:2
say count docker run --rm app:1 cat /count
say elsewhere docker run --rm app:2 cat /elsewhere
say status docker run --rm shared cat /status
say page docker run --rm app:1 cat /page /context/sub/page
say copied docker run --rm app:1 ls -a /context
say listed docker images --format '{{.Repository}}:{{.Tag}}'
say tagged docker tag app:1 kept
say untagged docker rmi app:2 shared
say kept docker run --rm kept cat /count
docker image inspect --format '{{.Id}}' app:1 > "id-$NAME"

# What the engine would fetch, or would do for others.
refused() { printf "$1" > "$CONTEXT/Dockerfile"; docker build "$CONTEXT"; }
say url refused 'FROM base\nADD http://192.0.2.1/x /x\n'
say hidden-url refused 'FROM base\nARG A=http\nADD $A://192.0.2.1/x /x\n'
say unknown refused 'FROM nowhere.invalid/x:1\n'
say copied-from refused 'FROM base\nCOPY --from=nowhere.invalid/x:1 /a /b\n'
say later refused 'FROM base\nONBUILD RUN true\n'
say frontend refused '# syntax=nowhere.invalid/x:1\nFROM base\n'
say triggered refused 'FROM triggers\n'
printf 'FROM base\nRUN true\n' > "$CONTEXT/Dockerfile"
say fresh docker build --pull "$CONTEXT"
say cached docker build --cache-from base "$CONTEXT"
say parent docker build --cgroup-parent / "$CONTEXT"
say network docker build --network none "$CONTEXT"
DOCKER_BUILDKIT=1 say buildkit docker build "$CONTEXT"

touch "ready-$NAME"
while [ ! -e "other-$NAME" ]; do sleep 0.05; done
say other docker run --rm "$(cat "other-$NAME")" true
say images docker images --quiet --no-trunc
