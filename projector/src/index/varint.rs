//! Integers in as many bytes as they need: seven bits a byte, the lowest first.

/// Appends an unsigned integer.
pub(super) fn put(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed one: small in either direction is short.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i128) {
    put(out, ((value << 1) ^ (value >> 127)) as u128);
}

/// Reads bytes that [`put`] wrote. Past the end it reads zeros: the store's checksums guard the bytes, not this.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Bytes<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn take(&mut self) -> u128 {
        let mut value = 0u128;
        let mut shift = 0u32;
        loop {
            let byte = self.byte();
            value |= u128::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    pub(super) fn take_u64(&mut self) -> u64 {
        self.take() as u64
    }

    pub(super) fn take_signed(&mut self) -> i128 {
        let value = self.take();
        ((value >> 1) as i128) ^ -((value & 1) as i128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(values in prop::collection::vec(any::<i128>(), 0..20)) {
            let mut out = Vec::new();
            for value in &values {
                put_signed(&mut out, *value);
                put(&mut out, *value as u128);
            }
            let mut bytes = Bytes(&out);
            for value in &values {
                prop_assert_eq!(bytes.take_signed(), *value);
                prop_assert_eq!(bytes.take(), *value as u128);
            }
            prop_assert!(bytes.is_empty());
        }
    }
}
