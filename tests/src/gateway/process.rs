//! The child process: where the binary is, how it starts, how it ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

/// Cargo's target directory as seen from the running test binary, most specific first.
pub fn target_dirs() -> Vec<PathBuf> {
    let exe = std::env::current_exe().expect("the path of the test binary");
    // target/PROFILE/deps/TEST, with one more level for a cross build.
    exe.ancestors().skip(3).take(2).map(Path::to_owned).collect()
}

/// The gateway binary: `PORTCULLIS_BIN`, or the newest of those built under the target directory.
///
/// # Panics
/// When there is none, with the command that builds it.
#[track_caller]
pub fn binary() -> PathBuf {
    if let Ok(given) = std::env::var("PORTCULLIS_BIN") {
        let path = PathBuf::from(given);
        assert!(path.is_file(), "PORTCULLIS_BIN={} is no file", path.display());
        return path;
    }
    let built = target_dirs().into_iter().flat_map(|dir| {
        ["test-release", "release", "debug"].map(|profile| dir.join(profile).join("portcullis"))
    });
    let newest = built
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path);
    newest.unwrap_or_else(|| {
        panic!(
            "no gateway binary under {:?}: run `cargo build --profile test-release -p portcullis`, \
             or `cargo xtask test`, or set PORTCULLIS_BIN",
            target_dirs()
        )
    })
}

/// A child that is killed by its id when the guard goes, and checked for panics.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Child>,
    stderr: PathBuf,
    pid: u32,
}

impl Process {
    /// Starts `command` with both outputs in `dir`; standard error is appended over restarts.
    pub fn start(command: &Command, dir: &Path) -> Process {
        let stderr = dir.join("stderr.log");
        let open =
            |path: &Path| File::options().create(true).append(true).open(path).expect("an output file");
        let mut command = with_parent_death(command);
        command
            .stdin(Stdio::null())
            .stdout(open(&dir.join("stdout.log")))
            .stderr(open(&stderr))
            .current_dir(dir);
        let child = spawn(command);
        let pid = child.id();
        Process { child: Mutex::new(child), stderr, pid }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Exit status once it has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().expect("child").try_wait().expect("waiting for the gateway")
    }

    pub fn stderr(&self) -> String {
        let bytes = std::fs::read(&self.stderr).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends it without warning and waits until it is gone.
    pub fn kill(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(child.kill());
        drop(child.wait());
    }

    #[track_caller]
    pub fn signal(&self, name: &str) {
        assert!(self.ended().is_none(), "the gateway has ended:\n{}", self.stderr());
        let sent = Command::new("kill").arg("-s").arg(name).arg(self.pid.to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "sending {name} to {}", self.pid);
    }

    #[track_caller]
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("a living gateway");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of KiB");
        kib * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let stderr = self.stderr();
        if std::thread::panicking() {
            eprintln!("--- gateway standard error ---\n{}", tail(&stderr));
        } else {
            // Input never panics the gateway, whatever a test sent.
            assert!(!stderr.contains("panicked at"), "the gateway panicked:\n{stderr}");
        }
    }
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(8 * 1024);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[start..]
}

/// The same command under `setpriv --pdeathsig`, so that a test process that is killed takes its
/// gateways along; unchanged where setpriv is missing.
fn with_parent_death(command: &Command) -> Command {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    let available = *AVAILABLE.get_or_init(|| {
        let probe = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output();
        probe.is_ok_and(|output| output.status.success())
    });
    let mut wrapped = if available {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
        setpriv
    } else {
        Command::new(command.get_program())
    };
    wrapped.args(command.get_args());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}

/// Starts a child from one thread that lives as long as this process.
///
/// The kernel sends a parent-death signal when the *thread* that forked ends, and the test runner
/// gives each test a thread of its own, while a shared gateway outlives the test that started it.
fn spawn(command: Command) -> Child {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The asker waits for the reply; it cannot be gone.
                drop(reply.send(command.spawn()));
            }
        });
        Mutex::new(orders)
    });
    let (reply, answer) = channel();
    spawner.lock().expect("spawner").send((command, reply)).expect("the spawner lives");
    answer.recv().expect("the spawner answers").expect("starting the gateway")
}
