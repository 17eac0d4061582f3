//! Changing bytes at random, reproducibly. Must not: know what the bytes mean.

/// SplitMix64: small, fast, the same everywhere.
pub struct Dice(u64);

/// Numbers that parsers trip over.
const NUMBERS: [u64; 12] =
    [0, 1, 0x17, 0x18, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];
/// Inputs never grow beyond this.
const BYTES_MAX: usize = 1 << 17;

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.draw() % end as u64) as usize }
    }
}

/// One to eight changes of `bytes`; `other` lends pieces.
pub fn mutate(bytes: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..1 << dice.below(4) {
        change(&mut changed, other, dice);
        changed.truncate(BYTES_MAX);
    }
    changed
}

fn change(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    let most = if dice.below(8) == 0 { bytes.len() } else { 16 };
    let length = dice.below(most) + 1;
    let end = (at + length).min(bytes.len());
    match dice.below(12) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        2 if at < bytes.len() => bytes[at] = dice.draw() as u8,
        3 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(if dice.below(2) == 0 { 1 } else { 255 }),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        6 | 7 => {
            let from = dice.below(other.len());
            let piece = &other[from..(from + length).min(other.len())];
            bytes.splice(at..end, piece.iter().copied());
        }
        8 => bytes.truncate(at),
        9 | 10 => {
            let number = NUMBERS[dice.below(NUMBERS.len())];
            let width = 1 << dice.below(4);
            let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
            let number = if dice.below(2) == 0 { &little[..width] } else { &big[8 - width..] };
            let end = (at + width).min(bytes.len());
            bytes.splice(at..end, number.iter().copied());
        }
        _ => {
            let noise: Vec<u8> = (0..length.min(64)).map(|_| dice.draw() as u8).collect();
            bytes.splice(at..at, noise);
        }
    }
}
