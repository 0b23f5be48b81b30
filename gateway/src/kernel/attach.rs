//! Attaching: native, then generic, then not at all; and switching a pinned link to a new program.
//!
//! A link is pinned as `links/INDEX_STYLE` under the pin root. The interface's index, not its name: bpffs
//! forbids dots, and an interface made anew under an old name has another index and needs a new link. The
//! style is in the name because the kernel does not tell it of a link.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, XdpMode};
use portcullis_abi::{PROGRAM, PROGRAM_FRAGS};

use super::error::{chain, errno_of, hint_of_attach};
use super::{KernelError, Mode, load, netlink, sys};

/// Where the program runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// In the driver, before the packet is a socket buffer.
    Native,
    /// In the stack's generic hook.
    Generic,
}

impl Style {
    const ALL: [Style; 2] = [Style::Native, Style::Generic];

    /// `native` or `generic`, as in configuration and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Style::Native => "native",
            Style::Generic => "generic",
        }
    }

    const fn aya(self) -> XdpMode {
        match self {
            Style::Native => XdpMode::Driver,
            Style::Generic => XdpMode::Skb,
        }
    }
}

impl Mode {
    /// In order of preference.
    const fn styles(self) -> &'static [Style] {
        match self {
            Mode::Off => &[],
            Mode::Auto => &Style::ALL,
            Mode::Native => &[Style::Native],
            Mode::Generic => &[Style::Generic],
        }
    }
}

/// What became of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// The style obtained; `None` is off.
    pub style: Option<Style>,
    /// Whether a running link was switched, so that no packet passed in between.
    pub switched: bool,
    /// What was tried and refused on the way, for the log.
    pub refused: Vec<String>,
}

/// The links of this process and their pins.
pub(super) struct Links {
    directory: PathBuf,
    pinned: bool,
}

impl Links {
    pub(super) fn under(pin_root: &Path) -> Links {
        Links { directory: pin_root.join("links"), pinned: true }
    }

    /// Links that end with the process; for test-run, which attaches nothing.
    pub(super) fn unpinned() -> Links {
        Links { directory: PathBuf::new(), pinned: false }
    }

    pub(super) fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        mode: Mode,
        interfaces: &[String],
    ) -> Result<Vec<Attachment>, KernelError> {
        if self.pinned && mode != Mode::Off {
            load::make_directory(&self.directory)?;
        }
        interfaces.iter().map(|interface| self.attach_one(ebpf, mode, interface)).collect()
    }

    fn attach_one(&self, ebpf: &mut Ebpf, mode: Mode, interface: &str) -> Result<Attachment, KernelError> {
        let mut attachment =
            Attachment { interface: interface.to_owned(), style: None, switched: false, refused: Vec::new() };
        let Some(index) = sys::interface_index(interface) else {
            return match mode {
                Mode::Off => Ok(attachment),
                _ => Err(KernelError::NoInterface { interface: interface.to_owned() }),
            };
        };

        // A link of an earlier run first: taking it over is the way without a gap.
        for style in Style::ALL {
            let pin = self.pin(index, style);
            if !pin.exists() {
                continue;
            }
            if Standing::of(&pin, index) == Standing::Elsewhere {
                // Another gateway's, most likely: neither taken over nor removed.
                let reason = format!("{} {}", pin.display(), ELSEWHERE);
                return match mode {
                    Mode::Off => Ok(attachment),
                    Mode::Auto => {
                        attachment.refused.push(reason);
                        Ok(attachment)
                    }
                    Mode::Native | Mode::Generic => Err(KernelError::Attach {
                        interface: interface.to_owned(),
                        mode: mode.styles()[0].as_str(),
                        reason,
                    }),
                };
            }
            if mode.styles().contains(&style) {
                match switch(ebpf, &pin) {
                    Ok(()) => {
                        attachment.style = Some(style);
                        attachment.switched = true;
                        return Ok(attachment);
                    }
                    Err(reason) => attachment.refused.push(format!("taking over the pinned link: {reason}")),
                }
            }
            remove(&pin)?;
        }

        for &style in mode.styles() {
            match attach_new(ebpf, interface, style, self.pinned.then(|| self.pin(index, style))) {
                Ok(()) => {
                    attachment.style = Some(style);
                    return Ok(attachment);
                }
                Err(reason) => attachment.refused.push(format!("{}: {reason}", style.as_str())),
            }
        }
        match mode {
            Mode::Off | Mode::Auto => Ok(attachment),
            Mode::Native | Mode::Generic => Err(KernelError::Attach {
                interface: interface.to_owned(),
                mode: mode.styles()[0].as_str(),
                reason: attachment.refused.join("; "),
            }),
        }
    }

    fn pin(&self, index: u32, style: Style) -> PathBuf {
        self.directory.join(format!("{index}_{}", style.as_str()))
    }
}

const ELSEWHERE: &str = "is the link of an interface with the same number in another network namespace, which another \
                         gateway may guard: give this one an `xdp.pin_path` of its own, or run `portcullis xdp detach` there";

/// Where the interface of a pinned link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// In this thread's network namespace.
    Here,
    /// In another one.
    Elsewhere,
    /// Nowhere any more, or nobody says.
    Unknown,
}

impl Standing {
    fn of(pin: &Path, index: u32) -> Standing {
        let Ok(link) = PinnedLink::from_pin(pin) else { return Standing::Unknown };
        let link = FdLink::from(link);
        let Ok(info) = link.info() else { return Standing::Unknown };
        match netlink::runs_on(index, info.program_id()) {
            Ok(true) => Standing::Here,
            // The link has to be open for it.
            Ok(false) if interface_of(info.id()).is_some_and(|index| index != 0) => Standing::Elsewhere,
            _ => Standing::Unknown,
        }
    }
}

/// The index of the interface that a link, opened by this process, is on; 0 if that interface is gone.
fn interface_of(link: u32) -> Option<u32> {
    let wanted = link.to_string();
    let entries = fs::read_dir("/proc/self/fdinfo").ok()?.flatten();
    entries.filter_map(|entry| fs::read_to_string(entry.path()).ok()).find_map(|text| {
        let value = |key: &str| {
            let mut fields = text.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(name, _)| *name == key).map(|(_, value)| value.trim().to_owned())
        };
        (value("link_id")? == wanted).then(|| value("ifindex")?.parse().ok())?
    })
}

/// A pinned link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pinned {
    /// The name of its pin, `INDEX_STYLE`.
    pub name: String,
    /// Its interface, where that is one of this thread's network namespace.
    pub interface: Option<String>,
}

impl Pinned {
    fn at(pin: &Path) -> Pinned {
        let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let index = name.split('_').next().and_then(|index| index.parse().ok());
        let here = index.filter(|index| Standing::of(pin, *index) == Standing::Here);
        Pinned { interface: here.and_then(sys::interface_name), name }
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name.split_once('_'), &self.interface) {
            (Some((_, style)), Some(interface)) => write!(f, "{interface}: {style}"),
            (Some((index, style)), None) => {
                write!(f, "interface {index} of another network namespace, or gone: {style}")
            }
            (None, _) => f.write_str(&self.name),
        }
    }
}

/// Every pinned link under `pin_root`, whether or not a gateway runs; sorted.
pub fn pinned(pin_root: &Path) -> Result<Vec<Pinned>, KernelError> {
    let mut links: Vec<Pinned> =
        entries(&pin_root.join("links"))?.iter().map(|pin| Pinned::at(pin)).collect();
    links.sort();
    Ok(links)
}

/// Removes every pinned link under `pin_root`, and with it the program from its interface, whether or not a
/// gateway runs. Maps stay. Returns what was removed.
pub fn detach(pin_root: &Path) -> Result<Vec<Pinned>, KernelError> {
    let links = pinned(pin_root)?;
    links.iter().try_for_each(|link| remove(&pin_root.join("links").join(&link.name)))?;
    Ok(links)
}

/// Forgets buckets, bans, lists and counters: removes the pinned maps of every layout under `pin_root`. For after
/// [`detach`], when no gateway runs. Returns how many maps were removed.
pub fn forget(pin_root: &Path) -> Result<usize, KernelError> {
    let mut removed = 0;
    for layout in entries(pin_root)? {
        for map in entries(&layout)? {
            remove(&map)?;
            removed += 1;
        }
        // Kept when something else is in it.
        let _ = fs::remove_dir(&layout);
    }
    let _ = fs::remove_dir(pin_root);
    Ok(removed)
}

/// What is in a folder; nothing when there is no such folder, or it is none.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let reading = |source| KernelError::Pin { doing: "reading", path: directory.to_owned(), source };
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|e| e.path()).map_err(reading)).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(source) => Err(reading(source)),
    }
}

fn remove(pin: &Path) -> Result<(), KernelError> {
    fs::remove_file(pin).map_err(|source| KernelError::Pin {
        doing: "removing",
        path: pin.to_owned(),
        source,
    })
}

/// Runs `step` with the plain program, and where the MTU forbids that one, with the multi-buffer one.
fn with_program<T>(
    ebpf: &mut Ebpf,
    mut step: impl FnMut(&mut Ebpf, &'static str) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match step(ebpf, PROGRAM) {
        Err(failure) if failure.errno == Some(libc::ERANGE) => {
            // Before 5.18 it does not load; then the first answer is the one that helps.
            step(ebpf, PROGRAM_FRAGS).map_err(|_| failure)
        }
        answer => answer,
    }
}

/// Why a step failed, and the system's number for it.
struct Failure {
    errno: Option<i32>,
    text: String,
}

impl Failure {
    fn of_program(error: ProgramError) -> Failure {
        let errno = errno_of(&error);
        Failure { errno, text: format!("{}{}", chain(&error), hint_of_attach(errno)) }
    }

    fn of(error: impl std::error::Error) -> Failure {
        Failure { errno: None, text: chain(&error) }
    }
}

fn switch(ebpf: &mut Ebpf, pin: &Path) -> Result<(), String> {
    with_program(ebpf, |ebpf, name| {
        let link: FdLink = PinnedLink::from_pin(pin).map_err(Failure::of)?.into();
        let link: XdpLink = link.try_into().map_err(|error: LinkError| Failure::of(error))?;
        let program = load::program(ebpf, name).map_err(Failure::of)?;
        let id = program.attach_to_link(link).map_err(Failure::of_program)?;
        // The pin holds the link; a handle kept here would outlive `portcullis xdp detach`.
        drop(program.take_link(id).map_err(Failure::of_program)?);
        Ok(())
    })
    .map_err(|failure| failure.text)
}

fn attach_new(ebpf: &mut Ebpf, interface: &str, style: Style, pin: Option<PathBuf>) -> Result<(), String> {
    with_program(ebpf, |ebpf, name| {
        let program = load::program(ebpf, name).map_err(Failure::of)?;
        let id = program.attach(interface, style.aya()).map_err(Failure::of_program)?;
        let Some(pin) = &pin else { return Ok(()) };
        let link = program.take_link(id).map_err(Failure::of_program)?;
        // Not a BPF link only if the kernel fell back to netlink (before 5.9), below what we need anyway.
        let link: FdLink = link.try_into().map_err(|error: LinkError| Failure::of(error))?;
        link.pin(pin).map(drop).map_err(Failure::of)
    })
    .map_err(|failure| failure.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_words() {
        let said = |name: &str, interface: Option<&str>| {
            Pinned { name: name.to_owned(), interface: interface.map(str::to_owned) }.to_string()
        };
        assert_eq!(said("2_native", Some("eth0")), "eth0: native");
        assert_eq!(said("9_generic", None), "interface 9 of another network namespace, or gone: generic");
        assert_eq!(said("odd", None), "odd");
    }
}
