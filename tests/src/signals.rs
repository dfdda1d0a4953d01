//! Stops processes without ending them.

use rustix::process::{Pid, Signal, kill_process};

use crate::ok;

/// Stops a process with SIGSTOP. Its connections stay open.
pub fn pause(pid: u32) {
    send(pid, Signal::STOP);
}

/// Continues a process with SIGCONT.
pub fn resume(pid: u32) {
    send(pid, Signal::CONT);
}

fn send(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { panic!("{pid} is no process ID") };
    ok(kill_process(pid, signal), "a signal");
}
