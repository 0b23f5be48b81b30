//! The command line.
//!
//! Owns: the words of it. Never: what they do; commands that end by themselves are in [`super::commands`], the
//! gateway is [`super::start`]. Exit codes: 0 done, 1 not (a bad configuration, a refused reload, no gateway
//! there), 2 a command line that makes no sense.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use super::commands;
use super::gateway::Gateway;
use super::operator::{self, DropsPlan};
use super::start::{self, Inputs};
use super::top;

/// An API gateway that drops abusive sources at the network card and serves everybody else from io_uring.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway in the foreground.
    Run {
        /// The configuration: a YAML file, or a folder of them.
        #[arg(long, short, env = "PORTCULLIS_CONFIG", value_name = "FILE")]
        config: PathBuf,
        /// Take over from the gateway that runs with the same admin socket: its listening sockets, so that no
        /// connection is refused or reset, its bans and its kernel part. It then finishes what it has and ends.
        #[arg(long)]
        upgrade: bool,
    },
    /// Say everything that is wrong with a configuration; exit with 1 if it cannot be used.
    Check {
        /// Each is a configuration of its own.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Warnings count as errors.
        #[arg(long)]
        strict: bool,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print a configuration of Kong or Traefik in our own words, with what differs as comments; exit with 1 if it
    /// cannot be used.
    Import {
        /// A file, or a folder of files that belong together.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Whose it is; found out from the file if left out.
        #[arg(long, value_enum)]
        from: Option<ForeignFormat>,
    },
    /// Let a running gateway read its configuration again; exit with 1 if it refuses it.
    Reload {
        #[command(flatten)]
        admin: AdminSocket,
    },
    /// Show what a running gateway is doing.
    Status {
        #[command(flatten)]
        admin: AdminSocket,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Refuse a source for a while, and end its connections.
    Ban {
        /// An IP address, or a CIDR. An IPv6 address stands for its /64.
        #[arg(value_name = "ADDRESS|CIDR")]
        source: String,
        /// For how long: 90s, 10m, 2h, 1d; at most 30 days.
        #[arg(long = "for", value_name = "TIME", default_value = operator::BAN_DEFAULT, value_parser = operator::parse_time)]
        time: Duration,
        /// Shown with the ban.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        admin: AdminSocket,
    },
    /// End a ban, whoever gave it.
    Unban {
        #[arg(value_name = "ADDRESS|CIDR")]
        source: String,
        #[command(flatten)]
        admin: AdminSocket,
    },
    /// List the bans in force.
    Bans {
        #[command(flatten)]
        shown: Shown,
    },
    /// Say what becomes of a source, and why: buckets, marks, bans, rules, and its last refusals.
    Why {
        address: IpAddr,
        #[command(flatten)]
        shown: Shown,
    },
    /// Watch rates, sources, routes, shards and targets.
    Top {
        /// Print one look and end.
        #[arg(long)]
        once: bool,
        /// With `--once`: every counter, in JSON.
        #[arg(long, requires = "once")]
        json: bool,
        /// Between two looks.
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = operator::parse_time)]
        interval: Duration,
        #[command(flatten)]
        admin: AdminSocket,
    },
    /// Show sampled packets that the kernel part dropped.
    Drops {
        /// Go on until interrupted.
        #[arg(long)]
        follow: bool,
        /// End after so many.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Write them to a pcapng file, the reasons as comments, instead of showing them.
        #[arg(long, value_name = "FILE")]
        pcap: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminSocket,
    },
    /// Print the JSON schema of the configuration.
    Schema,
    /// Look into JSON web tokens.
    Jwt {
        #[command(subcommand)]
        command: JwtCommand,
    },
    /// Look after the kernel part.
    Xdp {
        #[command(subcommand)]
        command: XdpCommand,
    },
}

#[derive(Debug, Subcommand)]
pub enum JwtCommand {
    /// Check signatures: reads lines of `{"key": JWK or JWK set, "token": "..."}` and answers each with `ok`, `no` or
    /// `unsupported`.
    Verify,
}

#[derive(Debug, Subcommand)]
pub enum XdpCommand {
    /// Show where the program is attached and what it has counted.
    Status(XdpPlace),
    /// Take the program off all interfaces, whether or not a gateway runs. Buckets and counters stay pinned.
    Detach {
        #[command(flatten)]
        place: XdpPlace,
        /// Remove the pinned maps too: buckets, bans, lists and counters are forgotten.
        #[arg(long)]
        forget: bool,
    },
}

#[derive(Debug, clap::Args)]
pub struct AdminSocket {
    /// The gateway's admin socket.
    #[arg(long = "admin", env = "PORTCULLIS_ADMIN", value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Shown {
    #[command(flatten)]
    admin: AdminSocket,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The same as `--format json`.
    #[arg(long)]
    json: bool,
}

impl Shown {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

#[derive(Debug, clap::Args)]
pub struct XdpPlace {
    /// Where maps and links are pinned; the configuration's `xdp.pin_path`.
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_PINS)]
    pub pins: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ForeignFormat {
    Kong,
    Traefik,
}

/// Does what the command line says. The exit code is the process's.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Run { config, upgrade } => {
            let load = commands::loader(config.clone());
            start::run(Inputs { config_path: config, load, begin: Box::new(Gateway::begin), upgrade })
        }
        Command::Check { files, strict, format } => commands::check(&files, strict, format),
        Command::Import { file, from } => super::import::import(&file, from),
        Command::Reload { admin } => commands::reload(&admin.socket),
        Command::Status { admin, format } => commands::status(&admin.socket, format),
        Command::Ban { source, time, reason, admin } => operator::ban(&admin.socket, &source, time, &reason),
        Command::Unban { source, admin } => operator::unban(&admin.socket, &source),
        Command::Bans { shown } => operator::bans(&shown.admin.socket, shown.format()),
        Command::Why { address, shown } => operator::why(&shown.admin.socket, address, shown.format()),
        Command::Top { once, json, interval, admin } => {
            let interval = interval.max(Duration::from_millis(100));
            top::run(&admin.socket, &top::Plan { interval, once, json })
        }
        Command::Drops { follow, count, pcap, admin } => {
            operator::drops(&admin.socket, &DropsPlan { follow, count, pcap })
        }
        Command::Schema => commands::schema(),
        Command::Jwt { command: JwtCommand::Verify } => super::jwt::verify(),
        Command::Xdp { command: XdpCommand::Status(place) } => commands::xdp_status(&place.pins),
        Command::Xdp { command: XdpCommand::Detach { place, forget } } => {
            commands::xdp_detach(&place.pins, forget)
        }
    }
}

const DEFAULT_SOCKET: &str = "/run/portcullis/admin.sock";
const DEFAULT_PINS: &str = "/sys/fs/bpf/portcullis";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let run = parse("portcullis run --config a.yaml").unwrap();
        assert!(
            matches!(run.command, Command::Run { config, upgrade: false } if config == Path::new("a.yaml"))
        );
        let check = parse("portcullis check a.yaml b.yaml --strict --format json").unwrap();
        let Command::Check { files, strict: true, format: Format::Json } = check.command else { panic!() };
        assert_eq!(files.len(), 2);
        assert!(parse("portcullis check").is_err());
        let import = parse("portcullis import kong.yaml --from kong").unwrap();
        let Command::Import { from: Some(ForeignFormat::Kong), .. } = import.command else { panic!() };
        let reload = parse("portcullis reload --admin /tmp/x").unwrap();
        assert!(matches!(reload.command, Command::Reload { admin } if admin.socket == Path::new("/tmp/x")));
        assert!(parse("portcullis xdp detach").is_ok() && parse("portcullis xdp").is_err());
    }
}
