# What developers do all day, each with tools of the host; says `ok NAME` for each.
#   tools.sh PYTHON
set -euo pipefail
python=$1
export HOME=$PWD TMPDIR=/tmp GIT_CONFIG_NOSYSTEM=1
mkdir work && cd work

# bash: jobs, pipes, process substitution, signals, a terminal of its own where it has one.
(sleep 0.1 & wait $!) && diff <(printf 'a\nb\n') <(printf 'b\na\n' | sort)
trap 'echo trapped > trapped' USR1; kill -USR1 $$; [ "$(cat trapped)" = trapped ]
mkfifo pipe && (echo through > pipe &) && [ "$(cat pipe)" = through ]
echo ok bash

git -c init.defaultBranch=main init -q origin
git -C origin config user.email a@example.org && git -C origin config user.name a
echo one > origin/file && git -C origin add file && git -C origin commit -qm one
git clone -q "file://$PWD/origin" copy && git -C copy log --oneline | grep -q one
git -C copy checkout -qb side && git -C copy gc -q
echo ok git

mkdir c && printf '#include <stdio.h>\nint main(void) { puts("compiled"); return 0; }\n' > c/a.c
printf 'all: a b\n\t./a\na: a.c\n\tcc -o a a.c\nb:\n\tsleep 0.1 && touch b\n' > c/Makefile
make -sC c -j2 | grep -q compiled
echo ok make

"$python" - <<'PY'
import http.server, multiprocessing, os, pty, socket, sqlite3, subprocess, tempfile, threading, urllib.request
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
assert urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=5).status == 200
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
with tempfile.NamedTemporaryFile() as file:
    sqlite3.connect(file.name).execute("CREATE TABLE t (a)").close()
with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
    one.bind("unix.sock"); one.listen(); other.connect("unix.sock")
assert pty.spawn(["true"]) == 0
assert subprocess.run(["sh", "-c", "exit 7"]).returncode == 7
PY
echo ok python

"$python" -m venv made-later
made-later/bin/python - <<'PY'
import zipfile
with zipfile.ZipFile("mine-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr("mine.py", 'SAYS = "installed"')
    wheel.writestr("mine-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    wheel.writestr("mine-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: a\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("mine-1.dist-info/RECORD", "mine.py,,\nmine-1.dist-info/METADATA,,\nmine-1.dist-info/WHEEL,,\nmine-1.dist-info/RECORD,,\n")
PY
made-later/bin/pip install -q --no-index ./mine-1-py3-none-any.whl
[ "$(made-later/bin/python -c 'import mine; print(mine.SAYS)')" = installed ]
echo ok venv

node -e '
const http = require("http"), { Worker } = require("worker_threads"), { spawnSync } = require("child_process");
const server = http.createServer((_, answer) => answer.end("served")).listen(0, "127.0.0.1", async () => {
    const text = await (await fetch(`http://127.0.0.1:${server.address().port}/`)).text();
    if (text !== "served" || spawnSync("sh", ["-c", "exit 7"]).status !== 7) process.exit(1);
    new Worker("require(\"worker_threads\").parentPort.postMessage(7)", { eval: true })
        .on("message", seven => { server.close(); process.exit(seven === 7 ? 0 : 1); });
});'
echo ok node

mkdir library application
printf '{"name": "library", "version": "1.0.0", "main": "index.js"}' > library/package.json
echo 'module.exports = "packed"' > library/index.js
(cd library && npm pack --silent > /dev/null)
printf '{"name": "application", "version": "1.0.0", "scripts": {"start": "node -p \\"require(\\u0027library\\u0027)\\""}}' > application/package.json
(cd application && npm install --silent --no-audit --no-fund --offline ../library/library-1.0.0.tgz > /dev/null && npm start --silent) | grep -q packed
echo ok npm

cargo init -q --vcs none --name built rust
(cd rust && CARGO_HOME=$HOME/cargo-home cargo run -q --offline) | grep -q 'Hello, world!'
echo ok cargo
