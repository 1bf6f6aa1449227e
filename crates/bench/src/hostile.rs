//! `bench hostile`: an honest call beside one attack after another, and what the call and the server show of each.
//!
//! Each attack meets a server of its own, so that none is blamed for what another one left behind. Attackers are another process at
//! the lowest priority: what is measured is what the server does, not who gets the cores first.

mod attack;
mod call;
mod coturn;
mod data;
mod dtls;
mod http;
mod intruder;
mod path;
mod reads;
mod reports;
mod row;
mod rtcp;
mod rtp;
mod sctp;
mod signalling;
mod stun;
mod target;
mod turn;

use crate::Failure;
use crate::process::{Cpu, forget_peak, peak_bytes, resident_bytes};
use attack::Attack;
use call::Call;
use row::{Memory, Row, within};
use rustix::process::setpriority_process;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use target::Site;

/// How long an attack lasts, unless it is said.
const ATTACK_S: u64 = 8;
/// The call beside nothing, before each attack.
const BASE: Duration = Duration::from_secs(4);
/// Every track flows and every estimate has settled after this.
const WARM_UP: Duration = Duration::from_secs(4);
/// What was lost is sent again within this, or it is lost.
const GRACE: Duration = Duration::from_secs(2);
/// Memory has so long to come back.
const BACK_MAX: Duration = Duration::from_secs(30);
/// Attackers end by themselves; this is for one that does not.
const ATTACKER_MAX: Duration = Duration::from_secs(60);
/// The honest call goes before the server, and both before whatever else the machine does.
const CALL_NICE: i32 = -15;
const SERVER_NICE: i32 = -5;
const ATTACKER_NICE: i32 = 19;
const SESSION_NICE: &str = "-19";

/// `[SECONDS] [ATTACK..]`, or as a process of its own `attack NAME SECONDS TARGET`.
pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    if let ["attack", name, seconds, target @ ..] = arguments {
        // Who may not lower its own priority still may raise its own niceness.
        setpriority_process(None, ATTACKER_NICE)?;
        return attack::serve(name, seconds.parse()?, target);
    }
    let (seconds, names) = match arguments.split_first() {
        Some((first, rest)) if first.parse::<u64>().is_ok() => (first.parse()?, rest),
        _ => (ATTACK_S, arguments),
    };
    let chosen = attack::chosen(names)?;
    // Where the kernel shares the cores out among sessions first, niceness counts only within one. Only root may.
    let _ = std::fs::write("/proc/self/autogroup", SESSION_NICE);
    println!("{}", Row::HEAD);
    let mut failed = 0;
    for attack in chosen {
        let is_good = match face(attack, seconds) {
            Ok(row) => {
                println!("{row}");
                row.is_good()
            }
            Err(failure) => {
                println!("{}\tnot measured: {failure}", attack.name);
                false
            }
        };
        failed += u64::from(!is_good);
    }
    if failed == 0 { Ok(()) } else { Err(format!("{failed} attacks missed a goal").into()) }
}

/// A new server and a new call, without and with the attack.
fn face(attack: &Attack, seconds: u64) -> Result<Row, Failure> {
    // Only root may raise priorities; without that the base is noisier, and so is the rest.
    let _ = setpriority_process(None, SERVER_NICE);
    let mut site = Site::start()?;
    let _ = setpriority_process(None, CALL_NICE);
    let mut call = Call::start(&site)?;
    call.run(WARM_UP)?;
    call.begin();
    call.run(BASE)?;
    let base = call.end(GRACE)?;
    let pid = site.server.pid;
    let before = resident_bytes(pid)?;
    forget_peak(pid)?;
    let cpu = Cpu::of_threads(pid, "")?;
    call.begin();
    let (sent, refusal) = attacked(attack, seconds, &site, &mut call)?;
    let spent = Cpu::of_threads(pid, "").map_or(0.0, |now| now.since(&cpu).total_s);
    let window = call.end(GRACE)?;
    let memory = if site.server.has_ended() { None } else { Some(come_back(pid, before, &mut call)?) };
    Ok(Row { attack: *attack, base, window, sent, refusal, server_cpu_s: spent, memory })
}

/// Runs the attackers beside the call; how many messages they sent, or why they could not.
fn attacked(
    attack: &Attack,
    seconds: u64,
    site: &Site,
    call: &mut Call,
) -> Result<(u64, Option<String>), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["hostile", "attack", attack.name, &seconds.to_string()])
        .args(site.target(call.addresses()).to_words())
        .stdout(Stdio::piped())
        .spawn()?;
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > ATTACKER_MAX + Duration::from_secs(seconds) {
            child.kill()?;
        }
        call.run(Duration::from_millis(50))?;
    }
    said(&mut child)
}

fn said(child: &mut Child) -> Result<(u64, Option<String>), Failure> {
    let mut text = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut text)?;
    }
    let (sent, refusal) = text.trim().split_once('\t').unwrap_or((text.trim(), ""));
    let sent = sent.parse().map_err(|_| format!("the attackers ended: {:?}", child.wait()))?;
    Ok((sent, (!refusal.is_empty()).then(|| refusal.to_owned())))
}

/// Waits until memory is back, or for as long as it may take.
fn come_back(pid: u32, before: f64, call: &mut Call) -> Result<Memory, Failure> {
    let (peak, started) = (peak_bytes(pid)?, Instant::now());
    let mut after = resident_bytes(pid)?;
    while !within(before, after) && started.elapsed() < BACK_MAX {
        call.run(Duration::from_secs(1))?;
        after = resident_bytes(pid)?;
    }
    Ok(Memory { before, peak, after, took: started.elapsed() })
}
