//! A systemd of a test's own: the first process of a PID namespace, with its own mounts and its own part of the cgroup tree.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cgroup,
    installation::Installation,
    leaks, places,
    process::{Finished, Job, PATIENCE, run, wait_until},
};

/// What is done before systemd begins: `$1` is its cgroup, `$2` the folder of its units.
const PREPARE: &str = r#"
set -e
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
echo 0 > "/sys/fs/cgroup/$1/cgroup.procs"
mount -t tmpfs -o mode=755 none /run
# Neither the host's settings nor its files nor its console are this one's.
for folder in /proc/sys /etc; do mount --bind $folder $folder; mount -o remount,bind,ro $folder; done
mount --bind /dev/null /dev/console
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH="/run/systemd/system:$2" \
    /lib/systemd/systemd --unit=test.target --log-target=console --show-status=no
"#;

/// Such a systemd, which is gone with the value, and everything that it started with it.
#[derive(Debug)]
pub struct Machine {
    cgroup: PathBuf,
    units: tempfile::TempDir,
    job: Option<Job>,
    first: u32,
}

impl Machine {
    /// Starts it, with services by name and text.
    #[track_caller]
    pub fn start(installation: &Installation, services: &[(&str, &str)]) -> Self {
        let name = format!("{}-machine", installation.mark());
        let cgroup = leaks::cgroup_root().join(&name);
        fs::create_dir(&cgroup).expect("a cgroup");
        let units = places::scratch("units");
        let target = "[Unit]\nDescription=a test\nDefaultDependencies=no\n";
        fs::write(units.path().join("test.target"), target).expect("own folder");
        for (service, text) in services {
            let text = format!("[Unit]\nDefaultDependencies=no\n\n[Service]\n{text}");
            fs::write(units.path().join(service), text).expect("own folder");
        }
        let mut command = Command::new(places::tool("unshare"));
        command.args(["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["/bin/sh", "-c", PREPARE, "sh", &name]).arg(units.path());
        // Made before the process, so that what stands goes again when a step fails.
        let mut machine = Self { cgroup, units, job: None, first: 0 };
        machine.job = Some(Job::start(command, ""));
        machine.await_start();
        machine
    }

    fn await_start(&mut self) {
        let outer = self.job.as_ref().map_or(0, Job::pid);
        wait_until("systemd to answer", PATIENCE, || {
            if self.job.as_mut().is_none_or(|job| !job.is_running()) {
                let said = self.job.take().map(|job| job.finish(PATIENCE));
                panic!("systemd does not start: {said:?}");
            }
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
            self.first = children.ok().and_then(|first| first.trim().parse().ok()).unwrap_or(0);
            self.first != 0 && self.systemctl(&["show", "--property=Version"]).status.success()
        });
    }

    /// The folder of its units.
    pub fn units(&self) -> &Path {
        self.units.path()
    }

    /// A command among its processes and files.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(places::tool("nsenter"));
        command.args(["--target", &self.first.to_string(), "--mount", "--pid", "--uts", "--ipc", "--"]);
        command.arg(program).env("NO_COLOR", "1").env("SYSTEMD_PAGER", "").env_remove("INTERCEPTOR_ROOT");
        command
    }

    /// Runs systemctl there.
    pub fn systemctl(&self, words: &[&str]) -> Finished {
        let mut command = self.command(&places::tool("systemctl"));
        command.args(words);
        run(command)
    }

    /// Runs the product there.
    pub fn interceptor(&self, installation: &Installation, words: &[&str]) -> Finished {
        let mut command = self.command(&places::interceptor());
        command.arg("--root").arg(installation.root()).args(words);
        run(command)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        cgroup::remove(&self.cgroup);
        let said = self.job.take().map(|job| job.end(PATIENCE));
        if std::thread::panicking() {
            eprintln!("systemd said:\n{}", said.map_or_else(String::new, |said| said.text()));
        }
    }
}
