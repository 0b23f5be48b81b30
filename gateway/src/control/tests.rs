//! The control loop over its real admin socket, with a data plane that only pretends.

use std::cell::RefCell;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_config::{Diagnostic, EmptyCatalog, Severity};
use serde_json::Value;

use super::client::{Answer, ask};
use super::plane::Compile;
use super::reload::Loaded;
use super::start::{EVENTS, Failure, Inputs, assemble, end};
use super::status::PlaneStatus;
use super::*;
use crate::log::Outbox;

/// What happened to the plane, in order, and what it is told to do.
#[derive(Default)]
struct Script {
    calls: Vec<String>,
    refuse_install: bool,
    has_connections: bool,
    is_starting: bool,
    outboxes: usize,
}

/// A plane without shards.
struct FakePlane {
    script: Rc<RefCell<Script>>,
    panic_in_compiler: Arc<AtomicBool>,
}

impl Plane for FakePlane {
    type Compiled = (usize, Generation);

    fn compiler(&self) -> Compile<Self::Compiled> {
        let panics = Arc::clone(&self.panic_in_compiler);
        Box::new(move |config, generation| {
            assert!(!panics.load(Ordering::Relaxed), "as told by the test");
            Ok(((config.listeners.len(), generation), Vec::new()))
        })
    }

    fn install(&mut self, (listeners, generation): Self::Compiled) -> Result<(), Vec<Diagnostic>> {
        let mut script = self.script.borrow_mut();
        if script.refuse_install {
            return Err(vec![diagnostic("address in use")]);
        }
        script.calls.push(format!("install {generation} with {listeners}"));
        Ok(())
    }

    fn refreshed(&self, ok: bool, generation: Generation) {
        self.script.borrow_mut().calls.push(format!("refreshed {ok} {generation}"));
    }

    fn beat(&mut self) {}

    fn is_running(&self) -> bool {
        !self.script.borrow().is_starting
    }

    fn retire(&mut self) {
        self.script.borrow_mut().calls.push("retire".into());
    }

    fn drain(&mut self) {
        self.script.borrow_mut().calls.push("drain".into());
    }

    fn is_drained(&self) -> bool {
        !self.script.borrow().has_connections
    }

    fn stop(&mut self) {
        self.script.borrow_mut().calls.push("stop".into());
    }

    fn reloaded(&self, ok: bool, generation: Generation, _at: u64) {
        self.script.borrow_mut().calls.push(format!("reloaded {ok} {generation}"));
    }

    fn answer(&mut self, _: ledger::Ask) {}

    fn hand_over(&self) -> std::io::Result<Handover> {
        Ok(Handover::default())
    }

    fn take_over(&mut self, handover: Handover) {
        self.script.borrow_mut().calls.push(format!("take over {}", handover.listeners.len()));
    }

    fn leave(&mut self) {
        self.script.borrow_mut().calls.push("leave".into());
    }

    fn status(&self) -> PlaneStatus {
        PlaneStatus { connections: 3, ..PlaneStatus::default() }
    }

    fn metrics(&self) -> String {
        "portcullis_test 1\n".into()
    }
}

fn diagnostic(message: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: "x.yaml".into(),
        line: 1,
        column: 2,
        path: "listeners[0]".into(),
        message: message.into(),
        hint: None,
        source_line: None,
        caret: (0, 1),
    }
}

/// A running control loop.
struct Scene {
    folder: tempfile::TempDir,
    script: Rc<RefCell<Script>>,
    panic_in_compiler: Arc<AtomicBool>,
    events: mpsc::Sender<Event>,
    exit: tokio::task::JoinHandle<ExitCode>,
}

impl Scene {
    async fn open(has_ring: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = Rc::new(RefCell::new(Script::default()));
        let panic_in_compiler = Arc::new(AtomicBool::new(false));
        write_config(folder.path(), 1, "");
        let plane = FakePlane { script: script.clone(), panic_in_compiler: panic_in_compiler.clone() };
        let seen = script.clone();
        let inputs = Inputs {
            upgrade: false,
            config_path: folder.path().join("gateway.yaml"),
            load: loader(folder.path().join("gateway.yaml")),
            begin: Box::new(move |_, outboxes: Vec<Outbox>| {
                seen.borrow_mut().outboxes = outboxes.len();
                Ok(plane)
            }),
        };
        let loaded = (inputs.load)().unwrap();
        let level = telemetry::install("error", telemetry::Shape::Text);
        let (events, receiver) = mpsc::channel(EVENTS);
        let started = assemble(inputs, loaded, level, has_ring, events.clone()).await;
        let mut running = match started {
            Ok(running) => running,
            Err(Failure::Findings(findings)) => panic!("{findings:?}"),
            Err(Failure::Machine(cause)) => panic!("{cause:?}"),
        };
        let exit = tokio::task::spawn_local(async move {
            let ending = running.control.serve(receiver).await;
            end(running.control, running.sockets, ending).await
        });
        Self { folder, script, panic_in_compiler, events, exit }
    }

    async fn ask(&self, method: &'static str, path: &'static str) -> Answer {
        let socket = self.folder.path().join("admin.sock");
        tokio::task::spawn_blocking(move || ask(&socket, method, path).unwrap()).await.unwrap()
    }

    async fn json(&self, method: &'static str, path: &'static str) -> (u16, Value) {
        let answer = self.ask(method, path).await;
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    /// Waits until something happens to the plane.
    async fn next_calls(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.script.borrow().calls.is_empty() {
            assert!(Instant::now() < deadline, "nothing happened within 5 s");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.calls()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.script.borrow_mut().calls)
    }
}

fn loader(path: PathBuf) -> Load {
    Arc::new(move || {
        let loaded = portcullis_config::load(&path, &EmptyCatalog)?;
        Ok(Loaded { config: Arc::new(loaded.config), remarks: loaded.warnings })
    })
}

fn write_config(folder: &Path, listeners: u16, more: &str) {
    let mut text = format!("admin:\n  socket: {}\n", folder.join("admin.sock").display());
    text += &format!("telemetry:\n  access_log: {}\n", folder.join("access.log").display());
    text += "timeouts:\n  drain: 3s\n  drain_delay: 50ms\nshards:\n  count: 2\nlisteners:\n";
    for port in 1..=listeners {
        text += &format!("  - address: 127.0.0.1:{port}\n");
    }
    fs::write(folder.join("gateway.yaml"), text + more).unwrap();
}

fn in_each_runtime<F: Future<Output = ()>>(test: impl Fn(bool) -> F) {
    for runtime in runtime::tests::both() {
        runtime.block_on(test(runtime.refused().is_none()));
    }
}

#[test]
fn a_gateway_starts_answers_and_drains() {
    in_each_runtime(async |has_ring| {
        let scene = Scene::open(has_ring).await;
        assert_eq!(scene.script.borrow().outboxes, 2);
        assert_eq!(scene.calls(), ["install 1 with 1", "reloaded true 1"]);

        let (code, status) = scene.json("GET", "/status").await;
        assert_eq!((code, &status["state"], &status["generation"]), (200, &"serving".into(), &1.into()));
        assert_eq!(status["connections"], 3);
        assert_eq!(status["last_reload"]["ok"], true);
        assert_eq!(scene.ask("GET", "/status/ready").await.status, 200);
        scene.script.borrow_mut().is_starting = true;
        let starting = scene.ask("GET", "/status/ready").await;
        assert_eq!((starting.status, &*starting.body), (503, "starting\n"));
        scene.script.borrow_mut().is_starting = false;
        assert_eq!(scene.ask("GET", "/metrics").await.body, "portcullis_test 1\n");
        assert_eq!(scene.ask("GET", "/nothing").await.status, 404);
        assert_eq!(scene.ask("GET", "/reload").await.status, 405);

        scene.script.borrow_mut().has_connections = true;
        scene.events.send(Event::Signal(Signal::Stop)).await.unwrap();
        assert_eq!(scene.ask("GET", "/status/ready").await.status, 503);
        assert_eq!(scene.calls(), ["retire"]);
        let (code, report) = scene.json("POST", "/reload").await;
        assert_eq!((code, &report["ok"]), (422, &false.into()), "a reload while draining");
        scene.calls();
        assert_eq!(scene.next_calls().await, ["drain"]);
        assert!(!scene.exit.is_finished(), "a connection is open still");
        scene.script.borrow_mut().has_connections = false;
        assert_eq!(format!("{:?}", scene.exit.await.unwrap()), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(scene.script.borrow().calls, ["stop"]);
        assert!(!scene.folder.path().join("admin.sock").exists());
    });
}

#[test]
fn a_second_stop_does_not_wait() {
    in_each_runtime(async |has_ring| {
        let scene = Scene::open(has_ring).await;
        scene.script.borrow_mut().has_connections = true;
        scene.events.send(Event::Signal(Signal::Stop)).await.unwrap();
        scene.events.send(Event::Signal(Signal::Stop)).await.unwrap();
        assert_eq!(format!("{:?}", scene.exit.await.unwrap()), format!("{:?}", ExitCode::FAILURE));
    });
}

#[test]
fn a_reload_is_all_or_nothing() {
    in_each_runtime(async |has_ring| {
        let scene = Scene::open(has_ring).await;
        scene.calls();
        write_config(scene.folder.path(), 2, "");
        let (code, report) = scene.json("POST", "/reload").await;
        assert_eq!((code, &report["ok"], &report["generation"]), (200, &true.into(), &2.into()));
        assert_eq!(scene.calls(), ["install 2 with 2", "reloaded true 2"]);

        write_config(scene.folder.path(), 3, "lissteners: []\nservices: 7\n");
        let (code, report) = scene.json("POST", "/reload").await;
        assert_eq!((code, &report["ok"], &report["generation"]), (422, &false.into(), &2.into()));
        assert!(report["findings"].as_array().unwrap().len() >= 2, "not all errors are told: {report}");
        assert_eq!(scene.calls(), ["reloaded false 2"]);

        write_config(scene.folder.path(), 3, "");
        scene.script.borrow_mut().refuse_install = true;
        let (code, report) = scene.json("POST", "/reload").await;
        assert_eq!((code, &report["findings"][0]["message"]), (422, &"address in use".into()));
        scene.script.borrow_mut().refuse_install = false;

        scene.panic_in_compiler.store(true, Ordering::Relaxed);
        let (code, report) = scene.json("POST", "/reload").await;
        assert_eq!((code, &report["ok"]), (422, &false.into()));
        scene.panic_in_compiler.store(false, Ordering::Relaxed);
        assert_eq!(scene.calls(), ["reloaded false 2", "reloaded false 2"]);

        // A log that cannot be opened is found before the plane is touched.
        let text = fs::read_to_string(scene.folder.path().join("gateway.yaml")).unwrap();
        let elsewhere = text.replace("access.log", "no/such/folder.log");
        fs::write(scene.folder.path().join("gateway.yaml"), elsewhere).unwrap();
        let (code, _) = scene.json("POST", "/reload").await;
        assert_eq!((code, scene.calls()), (422, vec!["reloaded false 2".to_owned()]));

        write_config(scene.folder.path(), 3, "");
        scene.events.send(Event::Signal(Signal::Reload)).await.unwrap();
        let (_, report) = scene.json("POST", "/reload").await;
        // Both may have become one reload, or two.
        assert_eq!(report["ok"], true);
        assert!(scene.calls().contains(&"install 3 with 3".to_owned()));
        scene.exit.abort();
    });
}

#[test]
fn what_needs_a_restart_is_said() {
    in_each_runtime(async |has_ring| {
        let scene = Scene::open(has_ring).await;
        let path = scene.folder.path().join("gateway.yaml");
        let text = fs::read_to_string(&path).unwrap().replace("count: 2", "count: 1");
        fs::write(&path, text).unwrap();
        let (code, report) = scene.json("POST", "/reload").await;
        assert_eq!(code, 200);
        let said = report["findings"].as_array().unwrap().iter().any(|finding| finding["path"] == "shards");
        assert!(said, "{report}");
        scene.exit.abort();
    });
}

#[test]
fn the_configuration_is_shown_without_secrets() {
    in_each_runtime(async |has_ring| {
        let scene = Scene::open(has_ring).await;
        let consumers =
            "consumers:\n  - username: ann\n    keyauth_credentials:\n      - key: hunter2hunter2\n";
        write_config(scene.folder.path(), 1, consumers);
        assert_eq!(scene.ask("POST", "/reload").await.status, 200);
        let shown = scene.ask("GET", "/config").await.body;
        assert!(shown.contains("ann"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        scene.exit.abort();
    });
}
