//! GGUF v3 reader. One sequential pass: the SHA-256 that names the model covers exactly the bytes that were used, and no
//! mapped page can change under us (which is why this is not an mmap). Every count, offset and length is bounded before
//! memory is taken for it. No numerics here, no meaning of keys.

use crate::error::Error;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::ops::Range;

/// Bytes of a metadata or tensor name.
const NAME_BYTES_MAX: u64 = 512;
/// Bytes of one string value (a chat template is the longest in use).
const STRING_BYTES_MAX: u64 = 4 << 20;
/// Metadata pairs in one file.
const PAIRS_MAX: u64 = 16_384;
/// Tensors in one file.
const TENSORS_MAX: u64 = 65_536;
/// Elements in all arrays of one file together (the largest vocabularies in use need about a million).
const ELEMENTS_MAX: u64 = 4 << 20;
/// Arrays inside arrays.
const ARRAY_DEPTH_MAX: u32 = 4;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 18;

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TensorType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
    /// 256 elements: eight sub-blocks of 32 with 6-bit scales and minima.
    Q4K,
    /// 256 elements: sixteen sub-blocks of 16 with 8-bit scales.
    Q6K,
}

impl TensorType {
    /// The code in a file.
    pub(crate) fn code(self) -> u32 {
        match self {
            TensorType::F32 => 0,
            TensorType::F16 => 1,
            TensorType::Q4_0 => 2,
            TensorType::Q4_1 => 3,
            TensorType::Q8_0 => 8,
            TensorType::Q4K => 12,
            TensorType::Q6K => 14,
            TensorType::Bf16 => 30,
        }
    }

    fn from_code(code: u32, tensor: &str) -> Result<TensorType, Error> {
        const NAMES: [&str; 17] = [
            "F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K",
            "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS",
        ];
        match code {
            0 => Ok(TensorType::F32),
            1 => Ok(TensorType::F16),
            2 => Ok(TensorType::Q4_0),
            3 => Ok(TensorType::Q4_1),
            8 => Ok(TensorType::Q8_0),
            12 => Ok(TensorType::Q4K),
            14 => Ok(TensorType::Q6K),
            30 => Ok(TensorType::Bf16),
            _ => {
                let name = NAMES.get(code as usize).copied().unwrap_or("unknown");
                Err(Error::unsupported(format!(
                    "tensor {tensor} has type {code} ({name}); this version reads F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q6_K"
                )))
            }
        }
    }

    /// Elements of one block along a row.
    pub(crate) fn block_elements(self) -> usize {
        match self {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => 1,
            TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q8_0 => 32,
            TensorType::Q4K | TensorType::Q6K => 256,
        }
    }

    /// True for the types with blocks of 256.
    pub(crate) fn is_k_quant(self) -> bool {
        matches!(self, TensorType::Q4K | TensorType::Q6K)
    }

    /// Bytes of one block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            TensorType::F32 => 4,
            TensorType::F16 | TensorType::Bf16 => 2,
            TensorType::Q4_0 => 18,
            TensorType::Q4_1 => 20,
            TensorType::Q8_0 => 34,
            TensorType::Q4K => 144,
            TensorType::Q6K => 210,
        }
    }

    /// Bytes of a row of `columns` elements; `columns` is a multiple of the block.
    pub(crate) fn row_bytes(self, columns: usize) -> usize {
        columns / self.block_elements() * self.block_bytes()
    }
}

/// One metadata value. Integers of every width become i64; a u64 above its range is refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Value>),
}

/// Where a tensor lies. Dimensions above the second are refused unless 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorInfo {
    pub name: String,
    pub kind: TensorType,
    /// ne1; 1 for a vector.
    pub rows: usize,
    /// ne0, contiguous.
    pub columns: usize,
    /// From the start of the file, in bytes.
    pub offset: u64,
    pub bytes: u64,
}

/// Everything before the tensor data.
#[derive(Debug)]
pub(crate) struct Header {
    pub metadata: HashMap<String, Value>,
    /// Where each pair lies, in bytes from the start of the file, in the file's order.
    pub pairs: Vec<(String, Range<u64>)>,
    /// Tensors start on multiples of this many bytes.
    pub alignment: u64,
    /// Ascending by offset, without overlap.
    pub tensors: Vec<TensorInfo>,
}

/// Values by key, and where each pair lies.
type Metadata = (HashMap<String, Value>, Vec<(String, Range<u64>)>);

/// A reader that knows where it is, how long the file is, and hashes every byte that passes.
pub(crate) struct Source<R> {
    reader: R,
    position: u64,
    length: u64,
    hash: Sha256,
}

impl<R: Read> Source<R> {
    /// `length` is the size of the file in bytes; reading beyond it is refused.
    pub(crate) fn new(reader: R, length: u64) -> Source<R> {
        Source { reader, position: 0, length, hash: Sha256::new() }
    }

    /// Fills `buffer` with the next bytes.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        if buffer.len() as u64 > self.remaining() {
            let detail = format!("{} bytes wanted, {} left", buffer.len(), self.remaining());
            return Err(Error::malformed(self.position, detail));
        }
        self.reader.read_exact(buffer).map_err(|e| Error::malformed(self.position, e.to_string()))?;
        self.hash.update(&*buffer);
        self.position += buffer.len() as u64;
        Ok(())
    }

    /// Reads and hashes up to the absolute `offset`.
    pub(crate) fn advance_to(&mut self, offset: u64) -> Result<(), Error> {
        let mut buffer = vec![0u8; CHUNK_BYTES];
        while self.position < offset {
            let step = (offset - self.position).min(CHUNK_BYTES as u64) as usize;
            self.read(&mut buffer[..step])?;
        }
        Ok(())
    }

    /// Hashes the rest and returns the SHA-256 of the whole file: the model id.
    pub(crate) fn finish(mut self) -> Result<[u8; 32], Error> {
        self.advance_to(self.length)?;
        let extra =
            self.reader.read(&mut [0u8; 1]).map_err(|e| Error::malformed(self.position, e.to_string()))?;
        if extra != 0 {
            return Err(Error::malformed(self.position, "the file grew while it was read"));
        }
        Ok(self.hash.finalize().into())
    }

    fn remaining(&self) -> u64 {
        self.length - self.position
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut buffer = [0u8; N];
        self.read(&mut buffer)?;
        Ok(buffer)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// A count of things of at least `bytes_min` bytes each, no more than `limit`.
    fn count(&mut self, what: &str, limit: u64, bytes_min: u64) -> Result<usize, Error> {
        let count = self.u64()?;
        if count > limit || count > self.remaining() / bytes_min {
            let detail = format!(
                "{count} {what}; at most {limit} are allowed and {} bytes are left",
                self.remaining()
            );
            return Err(Error::malformed(self.position, detail));
        }
        Ok(count as usize)
    }

    fn string(&mut self, bytes_max: u64) -> Result<String, Error> {
        let length = self.count("bytes in a string", bytes_max, 1)?;
        let mut buffer = vec![0u8; length];
        self.read(&mut buffer)?;
        String::from_utf8(buffer).map_err(|_| Error::malformed(self.position, "a string is not UTF-8"))
    }

    fn value(&mut self, code: u32, depth: u32, elements_left: &mut u64) -> Result<Value, Error> {
        Ok(match code {
            0 => Value::Integer(self.bytes::<1>()?[0].into()),
            1 => Value::Integer((self.bytes::<1>()?[0] as i8).into()),
            2 => Value::Integer(u16::from_le_bytes(self.bytes()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.bytes()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.bytes()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => match self.bytes::<1>()?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => {
                    return Err(Error::malformed(
                        self.position,
                        format!("boolean byte {other}, expected 0 or 1"),
                    ));
                }
            },
            8 => Value::Text(self.string(STRING_BYTES_MAX)?),
            9 => self.list(depth, elements_left)?,
            10 => {
                let value = self.u64()?;
                let detail = "unsigned value above 2^63";
                Value::Integer(i64::try_from(value).map_err(|_| Error::malformed(self.position, detail))?)
            }
            11 => Value::Integer(i64::from_le_bytes(self.bytes()?)),
            12 => Value::Float(f64::from_le_bytes(self.bytes()?)),
            other => {
                return Err(Error::malformed(
                    self.position,
                    format!("metadata value type {other}, expected 0 to 12"),
                ));
            }
        })
    }

    fn list(&mut self, depth: u32, elements_left: &mut u64) -> Result<Value, Error> {
        if depth >= ARRAY_DEPTH_MAX {
            return Err(Error::malformed(
                self.position,
                format!("arrays nested deeper than {ARRAY_DEPTH_MAX}"),
            ));
        }
        let element = self.u32()?;
        let bytes_min = match element {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            other => {
                return Err(Error::malformed(
                    self.position,
                    format!("array of value type {other}, expected 0 to 12"),
                ));
            }
        };
        let count = self.count("array elements", *elements_left, bytes_min)?;
        *elements_left -= count as u64;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(self.value(element, depth + 1, elements_left)?);
        }
        Ok(Value::List(list))
    }
}

impl Header {
    /// Reads the header and leaves `source` after the last tensor entry.
    pub(crate) fn read<R: Read>(source: &mut Source<R>) -> Result<Header, Error> {
        let magic = source.bytes::<4>()?;
        if &magic != b"GGUF" {
            return Err(Error::malformed(0, format!("the file starts with {magic:02x?}, expected \"GGUF\"")));
        }
        let version = source.u32()?;
        if version != 3 {
            return Err(Error::unsupported(format!(
                "GGUF version {version}; this version reads 3 (little-endian)"
            )));
        }
        // An entry has at least a name length, dimensions, type and offset; a pair a key length, a type and a byte.
        let tensor_count = source.count("tensors", TENSORS_MAX, 24)?;
        let pair_count = source.count("metadata pairs", PAIRS_MAX, 13)?;
        let (metadata, pairs) = Header::read_metadata(source, pair_count)?;
        let entries = (0..tensor_count).map(|_| Header::read_entry(source)).collect::<Result<Vec<_>, _>>()?;
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Integer(n)) if (1..=65_536).contains(n) && n.count_ones() == 1 => *n as u64,
            Some(other) => {
                return Err(Error::malformed(
                    0,
                    format!("general.alignment is {other:?}, expected a power of two up to 65536"),
                ));
            }
        };
        let data_start = source.position.next_multiple_of(alignment);
        let tensors = Header::place(entries, data_start, alignment, source.length)?;
        Ok(Header { metadata, pairs, alignment, tensors })
    }

    fn read_metadata<R: Read>(source: &mut Source<R>, count: usize) -> Result<Metadata, Error> {
        let (mut metadata, mut pairs) = (HashMap::new(), Vec::new());
        let mut elements_left = ELEMENTS_MAX;
        for _ in 0..count {
            let start = source.position;
            let key = source.string(NAME_BYTES_MAX)?;
            let code = source.u32()?;
            let value = source.value(code, 0, &mut elements_left)?;
            if metadata.contains_key(&key) {
                return Err(Error::malformed(source.position, format!("metadata key {key} occurs twice")));
            }
            pairs.push((key.clone(), start..source.position));
            metadata.insert(key, value);
        }
        Ok((metadata, pairs))
    }

    /// One tensor entry; its offset is still relative to the data.
    fn read_entry<R: Read>(source: &mut Source<R>) -> Result<TensorInfo, Error> {
        let name = source.string(NAME_BYTES_MAX)?;
        let dimension_count = source.u32()?;
        if !(1..=4).contains(&dimension_count) {
            return Err(Error::malformed(
                source.position,
                format!("tensor {name} has {dimension_count} dimensions, expected 1 to 4"),
            ));
        }
        let mut shape = [1u64; 4];
        for extent in shape.iter_mut().take(dimension_count as usize) {
            *extent = source.u64()?;
            if *extent == 0 || *extent > u32::MAX.into() {
                return Err(Error::malformed(
                    source.position,
                    format!("tensor {name} has an extent of {extent}"),
                ));
            }
        }
        let kind = TensorType::from_code(source.u32()?, &name)?;
        let offset = source.u64()?;
        if shape[2] != 1 || shape[3] != 1 {
            return Err(Error::unsupported(format!(
                "tensor {name} has more than two dimensions ({shape:?})"
            )));
        }
        if !shape[0].is_multiple_of(kind.block_elements() as u64) {
            let detail =
                format!("tensor {name}: row of {} elements is not a multiple of its block", shape[0]);
            return Err(Error::malformed(source.position, detail));
        }
        let row_bytes = shape[0] / kind.block_elements() as u64 * kind.block_bytes() as u64;
        let bytes = row_bytes.checked_mul(shape[1]);
        let bytes =
            bytes.ok_or_else(|| Error::malformed(source.position, format!("tensor {name} is too large")))?;
        Ok(TensorInfo { name, kind, rows: shape[1] as usize, columns: shape[0] as usize, offset, bytes })
    }

    /// Makes offsets absolute, checks alignment, bounds and overlap, sorts by offset.
    fn place(
        mut tensors: Vec<TensorInfo>,
        data_start: u64,
        alignment: u64,
        length: u64,
    ) -> Result<Vec<TensorInfo>, Error> {
        let mut names = HashSet::new();
        for tensor in &mut tensors {
            if !names.insert(tensor.name.clone()) {
                return Err(Error::malformed(data_start, format!("tensor {} occurs twice", tensor.name)));
            }
            if !tensor.offset.is_multiple_of(alignment) {
                let detail = format!(
                    "tensor {} at offset {} is not aligned to {alignment}",
                    tensor.name, tensor.offset
                );
                return Err(Error::malformed(data_start, detail));
            }
            let start = data_start.checked_add(tensor.offset);
            let end = start.and_then(|s| s.checked_add(tensor.bytes)).filter(|end| *end <= length);
            let (Some(start), Some(_)) = (start, end) else {
                let detail = format!(
                    "tensor {} ({} bytes at {}) ends beyond the file of {length} bytes",
                    tensor.name, tensor.bytes, tensor.offset
                );
                return Err(Error::malformed(data_start, detail));
            };
            tensor.offset = start;
        }
        tensors.sort_by_key(|t| t.offset);
        for pair in tensors.windows(2) {
            if pair[0].offset + pair[0].bytes > pair[1].offset {
                return Err(Error::malformed(
                    pair[1].offset,
                    format!("tensors {} and {} overlap", pair[0].name, pair[1].name),
                ));
            }
        }
        Ok(tensors)
    }

    /// The text under `key`, an error that names the key if absent or of another type.
    pub(crate) fn text(&self, key: &str) -> Result<&str, Error> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Ok(text),
            other => Err(wrong(key, "a string", other)),
        }
    }

    /// The integer under `key` if present.
    pub(crate) fn integer_optional(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Integer(n)) if *n >= 0 => Ok(Some(*n as u64)),
            other => Err(wrong(key, "a non-negative integer", other)),
        }
    }

    /// The integer under `key`, which must lie in `1..=limit`.
    pub(crate) fn extent(&self, key: &str, limit: u64) -> Result<usize, Error> {
        match self.integer_optional(key)? {
            Some(n) if (1..=limit).contains(&n) => Ok(n as usize),
            _ => Err(wrong(key, &format!("an integer from 1 to {limit}"), self.metadata.get(key))),
        }
    }

    /// The number under `key` if present.
    pub(crate) fn float_optional(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x)),
            other => Err(wrong(key, "a float", other)),
        }
    }

    /// The list under `key`.
    pub(crate) fn list(&self, key: &str) -> Result<&[Value], Error> {
        match self.metadata.get(key) {
            Some(Value::List(list)) => Ok(list),
            other => Err(wrong(key, "an array", other)),
        }
    }

    /// The boolean under `key`, false if absent.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, Error> {
        match self.metadata.get(key) {
            None => Ok(false),
            Some(Value::Bool(b)) => Ok(*b),
            other => Err(wrong(key, "a boolean", other)),
        }
    }
}

fn wrong(key: &str, expected: &str, found: Option<&Value>) -> Error {
    let found = match found {
        None => "nothing".to_owned(),
        Some(Value::List(list)) => format!("an array of {}", list.len()),
        Some(Value::Text(text)) => format!("the string {:?}", text.chars().take(64).collect::<String>()),
        Some(Value::Integer(n)) => format!("the integer {n}"),
        Some(Value::Float(x)) => format!("the float {x}"),
        Some(Value::Bool(b)) => format!("the boolean {b}"),
    };
    Error::malformed(0, format!("metadata key {key}: expected {expected}, found {found}"))
}

#[cfg(test)]
mod tests;
