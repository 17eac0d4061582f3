//! The faults of one history: which, how often, and what they do. A fault is one that the real part can have: a tail is
//! never out of order, and log and tail never rot both. Must not: touch answers.

use super::world::{Happening, World};
use crate::checker::{Rot, Violation};
use crate::random::Random;
use journal::pipeline::{Input, Published};

/// The seed's own mix; chances per mille.
pub(super) struct Faults {
    /// A publish, or its acknowledgement, or a read.
    pub(super) lost: u64,
    /// A second copy of a publish lands up to 30 ms later.
    pub(super) late_copy: u64,
    pauses: u64,
    crashes: u64,
    clocks: u64,
    twins: u64,
    full_disks: u64,
    reconnects: u64,
    endings: u64,
    /// What will rot, if anything.
    rot: Rot,
    /// A power loss takes the tail's unsynced end.
    power_loss: bool,
    /// The tail answers at once, or after its sync.
    tail_us_max: u64,
    /// Time between two faults, microseconds.
    period_us: u64,
}

impl Faults {
    pub(super) fn choose(random: &mut Random) -> Self {
        let mut some = |most: u64| if random.chance(600) { random.below(most + 1) } else { 0 };
        let lost = some(50);
        let late_copy = some(100);
        let (pauses, crashes, clocks) = (some(150), some(120), some(100));
        let (twins, full_disks, reconnects, endings) = (some(150), some(100), some(100), some(40));
        let rot = match random.below(10) {
            0 => Rot::Log,
            1 => Rot::Tail,
            _ => Rot::None,
        };
        Self {
            lost,
            late_copy,
            pauses,
            crashes,
            clocks,
            twins,
            full_disks,
            reconnects,
            endings,
            rot,
            power_loss: rot == Rot::None && random.chance(500),
            tail_us_max: if random.chance(500) { 0 } else { 3_000 },
            period_us: random.between(5_000, 60_000),
        }
    }

    /// A writer's clock against virtual time.
    pub(super) fn clock(&self, random: &mut Random) -> i64 {
        if self.clocks == 0 { 0 } else { random.below(400_000) as i64 - 200_000 }
    }

    /// How long the tail takes.
    pub(super) fn tail_us(&self, random: &mut Random) -> u64 {
        random.below(self.tail_us_max + 1)
    }
}

impl World {
    /// Something breaks, by chance; after the faults' time everything is repaired.
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if !self.faulty() {
            self.log.full = false;
            self.tail.full = false;
            for writer in &mut self.writers {
                writer.paused_until_us = writer.paused_until_us.min(self.now_us);
            }
            return Ok(());
        }
        self.at(self.faults.period_us, Happening::Fault);
        let alive: Vec<usize> = (0..self.writers.len()).filter(|w| self.writers[*w].alive).collect();
        let pick = self.random.below(alive.len().max(1) as u64) as usize;
        let victim = alive.get(pick).copied();
        if self.random.chance(self.faults.full_disks) {
            self.log.full = !self.log.full;
        }
        if self.random.chance(self.faults.full_disks) {
            self.tail.full = !self.tail.full;
        }
        if let Some(victim) = victim {
            self.hurt(victim)?;
        }
        if self.random.chance(self.faults.twins) {
            self.start_writer()?;
        }
        if self.faults.rot == Rot::Log && self.rot == Rot::None && self.random.chance(60) {
            self.rot_log();
        }
        Ok(())
    }

    fn hurt(&mut self, victim: usize) -> Result<(), Violation> {
        if self.random.chance(self.faults.pauses) {
            self.writers[victim].paused_until_us = self.now_us + self.random.between(1_000, 900_000);
        }
        if self.random.chance(self.faults.clocks) {
            self.writers[victim].clock_us += self.random.below(2_000_000) as i64 - 1_000_000;
        }
        if self.random.chance(self.faults.reconnects) {
            self.writers[victim].connection += 1;
            if let Some(attempt) = self.writers[victim].attempt.take() {
                let result = Published::Ambiguous { reason: "reconnected".into() };
                let wait_us = self.random.between(1_000, 60_000);
                let input = Input::Published { attempt, result };
                self.at(wait_us, Happening::ToWriter { writer: victim, input });
            }
        }
        if self.random.chance(self.faults.crashes) {
            self.note(8, victim as u64);
            self.writers[victim].alive = false;
            if self.faults.power_loss && self.tail.is_owner(victim) {
                let lost = self.random.below(3);
                self.tail.lose_end(lost);
            }
        } else if self.random.chance(self.faults.endings) {
            let input = if self.random.chance(500) { Input::Shutdown } else { Input::Abandon };
            self.step(victim, input)?;
        }
        Ok(())
    }

    fn rot_log(&mut self) {
        let last = self.log.last();
        if last < 3 {
            return;
        }
        self.note(9, last);
        self.rot = Rot::Log;
        self.rot_at_us = self.now_us;
        if self.random.chance(300) {
            let sequence = self.random.between(1, last - 1);
            self.log.lose_one(sequence);
        } else {
            let count = self.random.between(1, (last - 1).min(5));
            self.log.lose_end(count);
        }
    }

    /// A tail rots while nobody has it open.
    pub(super) fn before_start(&mut self) {
        let owned = self.writers.iter().any(|writer| writer.alive);
        if self.faults.rot != Rot::Tail || self.rot != Rot::None || owned || !self.random.chance(300) {
            return;
        }
        let head = self.tail.head().commit;
        if head < 3 {
            return;
        }
        self.note(10, head);
        self.rot = Rot::Tail;
        self.rot_at_us = self.now_us;
        let number = self.random.between(1, head);
        self.tail.spoil(number);
    }
}
