//! `portcullis top`: what the gateway does, as it does it.
//!
//! Owns: asking over the admin socket, keys, and the terminal. Never: a number; rates are made in [`frame`], and shown
//! by [`screen`] or, for scripts, by [`plain`]. Invariant: the terminal is left as it was found, also by a panic
//! (ratatui's hook).

mod frame;
mod plain;
mod screen;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::frame::Frame;
use self::screen::State;
use super::client;
use super::commands::print;
use super::ledger::Top;
use super::operator::wait;

/// How to show it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Between two looks.
    pub interval: Duration,
    /// Print one look and end.
    pub once: bool,
    /// With `once`: the counters as they come, in JSON.
    pub json: bool,
}

/// Shows it until the operator has seen enough.
pub fn run(socket: &Path, plan: &Plan) -> Result<ExitCode> {
    if plan.once && plan.json {
        print(&(ask_text(socket)? + "\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut watch = Watch { socket: socket.to_owned(), last: ask(socket)? };
    if plan.once {
        wait(plan.interval);
        print(&plain::text(&watch.look()?, &State::default()));
        return Ok(ExitCode::SUCCESS);
    }
    let mut terminal = ratatui::try_init().context("no terminal to draw on; `--once` needs none")?;
    let ended = live(&mut terminal, &mut watch, plan.interval);
    ratatui::restore();
    ended.map(|()| ExitCode::SUCCESS)
}

/// The counters that were read last.
struct Watch {
    socket: PathBuf,
    last: Top,
}

impl Watch {
    fn look(&mut self) -> Result<Frame> {
        let now = ask(&self.socket)?;
        let frame = Frame::between(&self.last, &now);
        self.last = now;
        Ok(frame)
    }
}

fn live(terminal: &mut ratatui::DefaultTerminal, watch: &mut Watch, interval: Duration) -> Result<()> {
    let mut state = State::default();
    let mut frame = Frame::between(&watch.last, &watch.last);
    let mut next = Instant::now() + FIRST_LOOK;
    loop {
        terminal.draw(|area| screen::draw(area, &frame, &state))?;
        let wait = next.saturating_duration_since(Instant::now());
        if event::poll(wait)? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && !press(&mut state, key.code, key.modifiers)
            {
                return Ok(());
            }
            continue;
        }
        next = Instant::now() + interval;
        if !state.paused {
            frame = watch.look()?;
        }
    }
}

/// What a key does. False: the operator has seen enough.
fn press(state: &mut State, key: KeyCode, modifiers: KeyModifiers) -> bool {
    if key == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL) {
        return false;
    }
    if state.editing {
        match key {
            KeyCode::Enter => state.editing = false,
            KeyCode::Esc => {
                state.editing = false;
                state.filter.clear();
            }
            KeyCode::Backspace => drop(state.filter.pop()),
            KeyCode::Char(letter) if state.filter.len() < FILTER_MAX => state.filter.push(letter),
            _ => {}
        }
        return true;
    }
    match key {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('s') => state.sort = state.sort.next(),
        KeyCode::Char('p' | ' ') => state.paused = !state.paused,
        KeyCode::Char('/') => state.editing = true,
        _ => {}
    }
    true
}

fn ask(socket: &Path) -> Result<Top> {
    serde_json::from_str(&ask_text(socket)?).context("an answer of another shape")
}

fn ask_text(socket: &Path) -> Result<String> {
    let answer = client::ask(socket, "GET", "/top")?;
    if answer.status != 200 {
        bail!("the gateway answers {}", answer.status);
    }
    Ok(answer.body)
}

/// The first rates come soon, whatever the interval.
const FIRST_LOOK: Duration = Duration::from_millis(300);
const FILTER_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::screen::Sort;
    use super::*;

    #[test]
    fn keys() {
        let mut state = State::default();
        let mut press = |key| super::press(&mut state, key, KeyModifiers::NONE);
        assert!(press(KeyCode::Char('s')) && press(KeyCode::Char('p')) && press(KeyCode::Char('/')));
        for letter in "abq".chars() {
            assert!(press(KeyCode::Char(letter)), "a letter of the filter ends nothing");
        }
        assert!(press(KeyCode::Backspace) && press(KeyCode::Enter));
        assert!(!press(KeyCode::Char('q')));
        assert_eq!((state.filter.as_str(), state.paused, state.editing), ("ab", true, false));
        assert_eq!(state.sort, Sort::default().next());
        assert!(super::press(&mut state, KeyCode::Char('/'), KeyModifiers::NONE));
        assert!(super::press(&mut state, KeyCode::Esc, KeyModifiers::NONE) && state.filter.is_empty());
        assert!(!super::press(&mut state, KeyCode::Char('c'), KeyModifiers::CONTROL));
    }
}
