//! `seawall`: the daemon and its command line.

mod attack;
mod daemon;
mod demo;
mod interrupt;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use seawall_control::api::{Client, ClientError, NewFile, Stop};
use seawall_control::config::{DEFAULT_STATE, Protocol};
use seawall_control::counters::{render_drops, render_stats};
use seawall_control::report::{Health, Page, ServerName, SessionReport};

use daemon::Scope;

/// LVS-compatible layer-4 load balancer that answers TCP floods from XDP.
#[derive(Parser)]
#[command(name = "seawall", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon in the foreground; prints `ready` once traffic is served.
    Run {
        /// Configuration file.
        #[arg(long, default_value = "/etc/seawall/seawall.toml")]
        config: PathBuf,
    },
    /// Watch it work: requests through a VIP while it is flooded. Needs nothing but root.
    Demo(demo::Options),
    /// Attack it in every way that it must stand, while clients go on asking. Needs nothing but
    /// root.
    Attack(attack::Options),
    /// Show counters, services and real servers.
    Stats(Query),
    /// List live sessions.
    Sessions(Query),
    /// Show every drop counter that moved, what it means and what to do.
    Drops(Query),
    /// Mark a real server up or down while the daemon runs. Down, it gets no new connections; it keeps
    /// its weight, and established ones go on unless `expire_nodest_conn` is set.
    Server {
        #[command(subcommand)]
        mark: Mark,
    },
    /// Check a configuration file as `run` does before it touches anything, and whether it goes with
    /// this machine: secret file, privileges, interfaces, routes. Exit status 1 if `run` would refuse.
    Check {
        /// Configuration file.
        #[arg(default_value = "/etc/seawall/seawall.toml")]
        file: PathBuf,
        /// Check the file alone, on another machine or as another user than it is for.
        #[arg(long)]
        file_only: bool,
    },
    /// Show what a reload would change if the daemon's configuration file were this one. Changes
    /// nothing. Exit status 1 if the reload would be refused.
    Diff {
        /// Configuration file.
        #[arg(default_value = "/etc/seawall/seawall.toml")]
        file: PathBuf,
        #[command(flatten)]
        query: Query,
    },
    /// Have the daemon read its configuration file anew and apply what differs; SIGHUP does the
    /// same.
    Reload {
        /// The daemon's API socket.
        #[arg(long, default_value = "/run/seawall/api.sock")]
        api: PathBuf,
    },
    /// Stop the daemon: XDP detached, addresses it added removed. When it has died, or was stopped
    /// with --keep, clear what it has left.
    Stop {
        /// The daemon's API socket.
        #[arg(long, default_value = "/run/seawall/api.sock")]
        api: PathBuf,
        /// Leave sessions and addresses to the next daemon.
        #[arg(long)]
        keep: bool,
        /// Clear what a daemon has left in this directory, if none listens on the socket; run it in
        /// the network namespace of that daemon.
        #[arg(long, default_value = DEFAULT_STATE, conflicts_with = "keep")]
        state: PathBuf,
    },
}

#[derive(Subcommand)]
enum Mark {
    /// It gets no new connections.
    Down(Server),
    /// It gets new connections by its weight.
    Up(Server),
}

#[derive(Args)]
struct Server {
    /// VIP and port of the service.
    service: SocketAddr,
    /// Address and port of the real server.
    server: SocketAddr,
    /// Protocol of the service.
    #[arg(long, default_value = "tcp", value_parser = protocol)]
    protocol: Protocol,
    /// The daemon's API socket.
    #[arg(long, default_value = "/run/seawall/api.sock")]
    api: PathBuf,
}

fn protocol(word: &str) -> Result<Protocol, String> {
    let known = Protocol::WORDS.iter().find(|(known, _)| *known == word);
    known.map(|(_, protocol)| *protocol).ok_or_else(|| "expected tcp or udp".to_owned())
}

#[derive(Args)]
struct Query {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The daemon's API socket.
    #[arg(long, default_value = "/run/seawall/api.sock")]
    api: PathBuf,
}

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("seawall: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(options) => return demo::run(&options),
        Command::Attack(options) => return attack::run(&options),
        Command::Run { config } => daemon::run(&config)?,
        Command::Stats(query) => {
            let stats = Client::new(&query.api).stats()?;
            let text = if query.json { stats.to_json()? } else { render_stats(&stats) };
            println!("{}", text.trim_end());
        }
        Command::Drops(query) => {
            let report = Client::new(&query.api).drops()?;
            if query.json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                println!("{}", render_drops(&report.drops).trim_end());
            }
        }
        Command::Sessions(query) => sessions(&query)?,
        Command::Server { mark: Mark::Down(server) } => mark(&server, Health::Down)?,
        Command::Server { mark: Mark::Up(server) } => mark(&server, Health::Up)?,
        Command::Check { file, file_only } => {
            let scope = if file_only { Scope::File } else { Scope::Machine };
            println!("{}", daemon::check(&file, scope)?);
        }
        Command::Diff { file, query } => return diff(&file, &query),
        Command::Reload { api } => println!("{}", Client::new(&api).reload()?.to_line()),
        Command::Stop { api, keep, state } => stop(&api, keep, &state)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A reload would be refused where something needs a restart.
fn diff(file: &Path, query: &Query) -> Result<ExitCode> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = file.display().to_string();
    let report = Client::new(&query.api).diff(NewFile { name, bytes })?;
    if query.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.to_text());
    }
    Ok(if report.restart.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How long a daemon may take to end.
const END: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);

fn stop(api: &Path, keep: bool, state: &Path) -> Result<()> {
    let client = Client::new(api);
    let what = if keep { Stop::Keep } else { Stop::End };
    match client.stop(what) {
        Ok(_) => {
            let end = Instant::now() + END;
            // The socket goes last; then the next daemon may come.
            while api.exists() && Instant::now() < end {
                std::thread::sleep(LOOK);
            }
            Ok(())
        }
        Err(error @ ClientError::NotRunning(_)) if !keep => {
            if !daemon::clear(state)? {
                return Err(error.into());
            }
            println!("cleared what a daemon had left in {}", state.display());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn mark(server: &Server, health: Health) -> Result<()> {
    let Server { service, server, protocol, ref api } = *server;
    let name = ServerName { service, protocol, server };
    let report = Client::new(api).set_health(name, health)?;
    let word = match health {
        Health::Up => "up",
        Health::Down => "down",
    };
    let already = if report.changed { "" } else { " already" };
    println!("real server {server} of service {service} is {word}{already}");
    Ok(())
}

fn sessions(query: &Query) -> Result<()> {
    let client = Client::new(&query.api);
    let mut page = Page::default();
    let mut all = Vec::new();
    loop {
        let report = client.sessions(page)?;
        all.extend(report.sessions);
        match report.next {
            Some(next) => page.offset = next,
            None => break,
        }
    }
    if query.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!(
        "{:<22} {:<22} {:<22} {:<22} {:<12} {:>8}",
        "CLIENT", "VIP", "LOCAL", "REAL SERVER", "STATE", "EXPIRES"
    );
    for SessionReport { client, vip, local, real_server, state, expires_ms, .. } in &all {
        println!(
            "{client:<22} {vip:<22} {local:<22} {real_server:<22} {state:<12} {:>7}s",
            expires_ms / 1000
        );
    }
    Ok(())
}
