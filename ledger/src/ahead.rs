//! Looking ahead: reads what the next commands will look at, so that they do not wait for memory one after the other.
//! Changes nothing and gives nothing. Must not: decide.

use crate::accounts::AccountNo;
use crate::command::{Command, CommandBody};
use crate::jobs::JobNo;
use crate::state::State;
use smallvec::SmallVec;
use std::hint::black_box;

/// So many commands are looked at together: enough for a processor's reads in flight, few enough for its nearest cache.
const TOGETHER: usize = 64;

/// Reads what the commands will need of the state: call it with some hundred commands before they are decided. It costs a
/// little, and the waiting for memory that it saves is most of a command's time once the state outgrows the caches.
pub fn look_ahead<'a>(state: &State, commands: impl IntoIterator<Item = &'a Command>) {
    let mut commands = commands.into_iter();
    loop {
        let together: SmallVec<[&Command; TOGETHER]> = commands.by_ref().take(TOGETHER).collect();
        if together.is_empty() {
            return;
        }
        let mut ahead = Ahead { state, payers: [[None; 2]; TOGETHER], jobs: [None; TOGETHER], read: 0 };
        // Each walk only reads what follows from what the walk before has read: none of its reads waits for another.
        ahead.tables(&together);
        ahead.rows(&together);
        ahead.payers();
        ahead.buckets();
        black_box(ahead.read);
    }
}

struct Ahead<'a> {
    state: &'a State,
    payers: [[Option<AccountNo>; 2]; TOGETHER],
    jobs: [Option<JobNo>; TOGETHER],
    /// A mix of all that was read, so that reading is not left out.
    read: u32,
}

impl Ahead<'_> {
    fn tables(&mut self, commands: &[&Command]) {
        for command in commands {
            self.read ^= self.state.keys.touch(&command.key);
            match &command.body {
                CommandBody::MoveCredit(command) => {
                    for id in [command.from, command.to] {
                        self.read ^= self.state.grants.get(id).map_or(0, |grant| grant.remaining.0 as u32);
                    }
                }
                CommandBody::Admit(command) => {
                    self.read ^= self.state.jobs.touch(&command.job, &command.hold)
                }
                CommandBody::Capture(command) => self.read ^= self.state.jobs.touch_id(&command.job),
                _ => {}
            }
        }
    }

    fn rows(&mut self, commands: &[&Command]) {
        for (place, command) in commands.iter().enumerate() {
            match &command.body {
                CommandBody::MoveCredit(command) => {
                    let owner = |id| self.state.grants.get(id).map(|grant| grant.account);
                    self.payers[place] = [owner(command.from), owner(command.to)];
                }
                CommandBody::Admit(command) => {
                    self.payers[place] = [self.state.accounts.find(&command.account), None];
                }
                CommandBody::Capture(command) => self.jobs[place] = self.state.jobs.find(&command.job),
                _ => {}
            }
        }
    }

    fn payers(&mut self) {
        for (payers, job) in self.payers.iter_mut().zip(&self.jobs) {
            if let Some(job) = job {
                let job = &self.state.jobs[*job];
                self.read ^= job.touch();
                payers[0] = Some(job.account);
            }
            for payer in payers.iter().flatten() {
                self.read ^= self.state.accounts.row(*payer).map_or(0, |row| row.book);
            }
        }
    }

    fn buckets(&mut self) {
        for payer in self.payers.iter().flatten().flatten() {
            let Some(row) = self.state.accounts.row(*payer) else { continue };
            let first = row.grants.as_slice().first().and_then(|id| self.state.grants.get(*id));
            self.read ^= first.map_or(0, |grant| grant.remaining.0 as u32) ^ self.state.books.touch(row.book);
        }
    }
}
