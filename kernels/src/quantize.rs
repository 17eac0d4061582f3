//! Makes a smaller model file out of another: the same metadata and vectors, matrices in 8 or 4 bits (`specs/numerics.md`,
//! section M). The same input gives the same bytes on every machine. No model structure beyond the names of the two tables
//! that are kept in 8 bits.

use crate::error::Error;
use crate::gguf::{Header, Source, TensorInfo, TensorType};
use crate::packed::{BLOCK, PackedMatrix, f16_from_f32, float_from_bytes};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes read or written at a time.
const BUFFER_BYTES: usize = 1 << 18;
/// Tables that stay in 8 bits when the rest goes to 4: every token meets them.
const TABLES: [&str; 2] = ["token_embd.weight", "output.weight"];

/// To what the matrices are quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantizeType {
    /// 8 bits, 34 bytes for 32 weights.
    Q8_0,
    /// 4 bits around zero, 18 bytes for 32 weights.
    Q4_0,
    /// 4 bits above a minimum, 20 bytes for 32 weights.
    Q4_1,
}

impl QuantizeType {
    /// `Q8_0`, `Q4_0` or `Q4_1`, as it is appended to the model's name.
    pub fn name(self) -> &'static str {
        match self {
            QuantizeType::Q8_0 => "Q8_0",
            QuantizeType::Q4_0 => "Q4_0",
            QuantizeType::Q4_1 => "Q4_1",
        }
    }

    fn tensor_type(self) -> TensorType {
        match self {
            QuantizeType::Q8_0 => TensorType::Q8_0,
            QuantizeType::Q4_0 => TensorType::Q4_0,
            QuantizeType::Q4_1 => TensorType::Q4_1,
        }
    }

    /// `general.file_type` of GGUF.
    fn file_type(self) -> u32 {
        match self {
            QuantizeType::Q8_0 => 7,
            QuantizeType::Q4_0 => 2,
            QuantizeType::Q4_1 => 3,
        }
    }
}

/// What [`quantize`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizeReport {
    /// SHA-256 of the new file: its model id.
    pub id: [u8; 32],
    /// `general.name` of the new file.
    pub name: String,
    /// Size of the new file.
    pub bytes: u64,
    /// Matrices that were quantised; vectors are kept as they are.
    pub matrices: usize,
}

/// Reads the GGUF file `input` and writes it to `output` with its matrices as `kind`. Nothing is left at `output` on failure.
///
/// # Errors
/// [`Error::Io`], [`Error::MalformedModel`], [`Error::UnsupportedModel`] about the input; [`Error::Write`] about the output,
/// which must not exist.
pub fn quantize(input: &Path, output: &Path, kind: QuantizeType) -> Result<QuantizeReport, Error> {
    let open = || File::open(input).map_err(|e| Error::io(input, &e));
    let length = open()?.metadata().map_err(|e| Error::io(input, &e))?.len();
    let mut source = Source::new(BufReader::with_capacity(BUFFER_BYTES, open()?), length);
    let header = Header::read(&mut source)?;
    let plan = Plan::new(&header, kind)?;
    let head = plan.head(&header, open()?, input)?;

    if output.exists() {
        return Err(Error::write(output, "there is a file already; choose another name"));
    }
    let file = File::create_new(output).map_err(|e| Error::write(output, e))?;
    let mut sink =
        Sink { writer: BufWriter::with_capacity(BUFFER_BYTES, file), hash: Sha256::new(), bytes: 0 };
    let written = plan.write(&mut source, &head, &mut sink).and_then(|()| {
        sink.writer
            .flush()
            .and_then(|()| sink.writer.get_ref().sync_all())
            .map_err(|e| Error::write(output, e))
    });
    if let Err(error) = written.and_then(|()| source.finish().map(|_| ())) {
        // The first error is the one to tell; a file that cannot be removed either is visible there.
        let _ = std::fs::remove_file(output);
        return Err(error);
    }
    Ok(QuantizeReport {
        id: sink.hash.finalize().into(),
        name: plan.name,
        bytes: sink.bytes,
        matrices: plan.tensors.iter().filter(|t| t.from.rows > 1).count(),
    })
}

/// A tensor of the input and what it becomes.
struct Planned<'h> {
    from: &'h TensorInfo,
    to: TensorType,
    /// From the start of the data.
    offset: u64,
}

struct Plan<'h> {
    kind: QuantizeType,
    name: String,
    alignment: u64,
    tensors: Vec<Planned<'h>>,
}

impl<'h> Plan<'h> {
    fn new(header: &'h Header, kind: QuantizeType) -> Result<Plan<'h>, Error> {
        let mut offset = 0u64;
        let mut tensors = Vec::new();
        for from in &header.tensors {
            let to = match from.rows {
                1 => from.kind,
                _ if TABLES.contains(&from.name.as_str()) => TensorType::Q8_0,
                _ => kind.tensor_type(),
            };
            if !from.columns.is_multiple_of(to.block_elements()) {
                let what =
                    format!("tensor {}: rows of {} elements, not a multiple of 32", from.name, from.columns);
                return Err(Error::unsupported(what));
            }
            tensors.push(Planned { from, to, offset });
            let bytes = to.row_bytes(from.columns) as u64 * from.rows as u64;
            offset = (offset + bytes).next_multiple_of(header.alignment);
        }
        let name = format!("{} {}", header.text("general.name").unwrap_or("unnamed"), kind.name());
        Ok(Plan { kind, name, alignment: header.alignment, tensors })
    }

    /// Everything before the data: the pairs as they stand in the input, but for name and file type.
    fn head(&self, header: &Header, mut input: File, path: &Path) -> Result<Vec<u8>, Error> {
        const REPLACED: [&str; 2] = ["general.name", "general.file_type"];
        let kept: Vec<_> = header.pairs.iter().filter(|(key, _)| !REPLACED.contains(&key.as_str())).collect();
        let mut head = b"GGUF".to_vec();
        head.extend(3u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend((kept.len() as u64 + 2).to_le_bytes());
        for (_, range) in kept {
            let at = head.len();
            head.resize(at + (range.end - range.start) as usize, 0);
            let read =
                input.seek(SeekFrom::Start(range.start)).and_then(|_| input.read_exact(&mut head[at..]));
            read.map_err(|e| Error::io(path, &e))?;
        }
        head.extend(text("general.name"));
        head.extend(8u32.to_le_bytes());
        head.extend(text(&self.name));
        head.extend(text("general.file_type"));
        head.extend(4u32.to_le_bytes());
        head.extend(self.kind.file_type().to_le_bytes());
        for tensor in &self.tensors {
            head.extend(text(&tensor.from.name));
            head.extend(2u32.to_le_bytes());
            head.extend((tensor.from.columns as u64).to_le_bytes());
            head.extend((tensor.from.rows as u64).to_le_bytes());
            head.extend(tensor.to.code().to_le_bytes());
            head.extend(tensor.offset.to_le_bytes());
        }
        Ok(head)
    }

    fn write<R: Read>(&self, source: &mut Source<R>, head: &[u8], sink: &mut Sink) -> Result<(), Error> {
        sink.put(head)?;
        sink.align(self.alignment)?;
        let start = sink.bytes;
        for tensor in &self.tensors {
            sink.align(self.alignment)?;
            debug_assert_eq!(sink.bytes, start + tensor.offset, "the plan and the file agree");
            source.advance_to(tensor.from.offset)?;
            let mut raw = vec![0u8; tensor.from.kind.row_bytes(tensor.from.columns)];
            let mut values = vec![0.0f32; tensor.from.columns];
            let mut encoded = Vec::new();
            for _ in 0..tensor.from.rows {
                source.read(&mut raw)?;
                if tensor.to == tensor.from.kind {
                    sink.put(&raw)?;
                    continue;
                }
                decode(tensor.from, &raw, &mut values)?;
                encoded.clear();
                values.chunks_exact(BLOCK).for_each(|block| encode(tensor.to, block, &mut encoded));
                sink.put(&encoded)?;
            }
        }
        sink.align(self.alignment)
    }
}

struct Sink {
    writer: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Sink {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.writer.write_all(bytes).map_err(|e| Error::write(Path::new("the output file"), e))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self, alignment: u64) -> Result<(), Error> {
        let missing = self.bytes.next_multiple_of(alignment) - self.bytes;
        self.put(&vec![0u8; missing as usize])
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// The values of a row as f32; refuses what is not finite.
fn decode(tensor: &TensorInfo, raw: &[u8], values: &mut [f32]) -> Result<(), Error> {
    if tensor.kind.block_elements() == 1 {
        let elements = raw.chunks_exact(tensor.kind.block_bytes());
        elements
            .zip(values.iter_mut())
            .for_each(|(bytes, value)| *value = float_from_bytes(tensor.kind, bytes));
    } else {
        let mut row = PackedMatrix::zeroed(tensor.kind, 1, tensor.columns);
        row.set_row(0, raw);
        row.row(0, values);
    }
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(()),
        false => {
            Err(Error::malformed(tensor.offset, format!("tensor {} holds NaN or infinity", tensor.name)))
        }
    }
}

/// One block of 32 (M).
fn encode(kind: TensorType, block: &[f32], out: &mut Vec<u8>) {
    let inverse = |d: f32| if d == 0.0 { 0.0 } else { 1.0 / d };
    let nibbles = |out: &mut Vec<u8>, q: &dyn Fn(f32) -> u8| {
        let (low, high) = block.split_at(16);
        out.extend(low.iter().zip(high).map(|(l, h)| q(*l) | q(*h) << 4));
    };
    match kind {
        TensorType::Q8_0 => {
            let d = block.iter().fold(0.0f32, |a, x| a.max(x.abs())) / 127.0;
            let inverse = inverse(d);
            out.extend(f16_from_f32(d).to_le_bytes());
            out.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
        }
        TensorType::Q4_0 => {
            let extreme = block.iter().fold(0.0f32, |a, x| if x.abs() > a.abs() { *x } else { a });
            let d = extreme / -8.0;
            let inverse = inverse(d);
            out.extend(f16_from_f32(d).to_le_bytes());
            nibbles(out, &|x| ((x * inverse + 8.5) as u8).min(15));
        }
        _ => {
            let least = block.iter().copied().fold(f32::INFINITY, f32::min);
            let largest = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let d = (largest - least) / 15.0;
            let inverse = inverse(d);
            out.extend(f16_from_f32(d).to_le_bytes());
            out.extend(f16_from_f32(least).to_le_bytes());
            nibbles(out, &|x| (((x - least) * inverse + 0.5) as u8).min(15));
        }
    }
}

#[cfg(test)]
mod tests;
