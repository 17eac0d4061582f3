//! A model on a device and one pass of it: inputs up, launches or a recorded graph, results down. Which kernels run stands in
//! `plan.rs`. One pass at a time; whoever shares the model waits.

use super::device::{Address, Device, Recording};
use super::matrix::DeviceMatrix;
use super::pages::{HasPositions, PageCopies};
use super::plan::{
    self, DeviceActivations, Memory, Net, NetLayer, PARTIAL_BYTES_MAX, PassShape, ROW_BYTES, attention_rows,
    attention_shared_bytes,
};
use crate::error::Error;
use crate::forward::{Output, Row};
use crate::kv::{KvCache, KvShape, PAGE_POSITIONS};
use crate::model::{Layer, Model, Shape, Weights};
use crate::numerics::Activations;
use crate::packed::{BLOCK, PackedMatrix};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Rows up to which a pass is recorded as a graph: launches are what a small pass costs.
const GRAPH_ROWS_MAX: usize = 64;
/// Graphs kept; beyond that all are made anew.
const GRAPHS_MAX: usize = 128;
/// Share of the free device memory that keys and values may take, and the most copies of pages.
const PAGES_SHARE: usize = 2;
const PAGES_MAX: usize = 1 << 20;
/// What every GPU gives a block without being asked.
const SHARED_BYTES_MAX: usize = 48 << 10;

/// A model's weights on a device, and what its passes need there.
pub(crate) struct DeviceModel {
    /// Held for one pass.
    state: Mutex<State>,
}

struct State {
    device: Box<dyn Device>,
    net: Net,
    pages: PageCopies,
    memory: PassMemory,
    graphs: HashMap<PassShape, Recording>,
}

/// Where a pass puts its results on the host.
pub(crate) struct Outcome<'w> {
    pub last: &'w mut Activations,
    /// Place in `last` of each row with output.
    pub slots: &'w mut [usize],
    pub logits: &'w mut [f32],
    /// Rows that met NaN or infinity.
    pub bad: &'w [AtomicBool],
}

/// Memory of passes, enough for the largest so far.
#[derive(Default)]
struct PassMemory {
    inputs: Region,
    work: Region,
    partial: Region,
    results: Region,
}

/// A piece of device memory that grows.
#[derive(Clone, Copy)]
struct Region {
    address: Address,
    bytes: usize,
}

impl Default for Region {
    fn default() -> Region {
        Region { address: Address::NONE, bytes: 0 }
    }
}

impl Region {
    /// Makes sure of `bytes`; true if the address changed. The content is lost then.
    fn reserve(&mut self, device: &dyn Device, bytes: usize) -> Result<bool, Error> {
        if bytes <= self.bytes {
            return Ok(false);
        }
        if self.bytes > 0 {
            device.free(self.address);
            *self = Region::default();
        }
        let bytes = bytes.next_power_of_two();
        *self = Region { address: device.allocate(bytes)?, bytes };
        Ok(true)
    }
}

/// Hands out parts of a region, one after another.
struct Parts {
    start: Address,
    used: usize,
}

impl Parts {
    fn take(&mut self, bytes: usize) -> Address {
        let address = self.start.plus(self.used);
        self.used += bytes.next_multiple_of(256);
        address
    }
}

/// Extents that decide how much memory a pass needs.
struct Extents<'s> {
    shape: &'s Shape,
    pass: PassShape,
    /// Pages of all sequences together.
    pages: usize,
}

impl Extents<'_> {
    /// Places everything; regions that start at 0 give sizes.
    fn place(&self, starts: [Address; 4]) -> (Memory, [usize; 4]) {
        let (shape, pass) = (self.shape, self.pass);
        let (rows, attention) = (pass.rows, shape.heads * shape.head_dim);
        let [mut inputs, mut work, mut partial, mut results] = starts.map(|start| Parts { start, used: 0 });
        let projection = attention + 2 * shape.kv_heads * shape.head_dim;
        let activations = |parts: &mut Parts, rows: usize, width: usize| {
            DeviceActivations::at(parts.take(DeviceActivations::bytes(rows, width)), rows, width)
        };
        let chunk = attention_rows(shape, pass.tiles).min(rows);
        let memory = Memory {
            rows: inputs.take(rows * ROW_BYTES),
            index: inputs.take(pass.outputs * 4),
            angles: inputs.take(rows * shape.head_dim * 4),
            pages: inputs.take(self.pages * 8),
            stream: work.take(rows * shape.width * 4),
            delta: work.take(rows * shape.width * 4),
            projections: work.take(rows * projection * 4),
            gate_up: work.take(rows * 2 * shape.feed_forward * 4),
            hidden: activations(&mut work, rows, shape.width),
            attended: activations(&mut work, rows, attention),
            inner: activations(&mut work, rows, shape.feed_forward),
            partial: partial.take(chunk * pass.tiles * attention * 4),
            stats: partial.take(chunk * pass.tiles * shape.heads * 8),
            bad: results.take(rows * 4),
            stored: results.take(rows * self.stored_row_bytes()),
            last: activations(&mut results, pass.outputs, shape.width),
            logits: results.take(pass.logits * shape.vocabulary * 4),
        };
        (memory, [inputs, work, partial, results].map(|parts| parts.used))
    }

    /// New keys and values of a row, all layers.
    fn stored_row_bytes(&self) -> usize {
        self.shape.layers * 2 * self.shape.kv_heads * self.shape.head_dim * 2
    }
}

impl DeviceModel {
    /// Uploads the weights.
    ///
    /// # Errors
    /// [`Error::Device`], and [`Error::UnsupportedModel`] for extents that the kernels do not take.
    pub(super) fn new(
        device: Box<dyn Device>,
        shape: &Shape,
        weights: &Weights,
    ) -> Result<DeviceModel, Error> {
        let shared = attention_shared_bytes(shape);
        if shared > SHARED_BYTES_MAX {
            return Err(Error::unsupported(format!(
                "{} query heads of {} over {} key-value heads need {shared} bytes of shared memory on a device, at most {SHARED_BYTES_MAX}",
                shape.heads, shape.head_dim, shape.kv_heads
            )));
        }
        let net = upload(&*device, shape, weights)?;
        let kv = KvShape { layers: shape.layers, heads: shape.kv_heads, head_dim: shape.head_dim };
        let page_bytes = kv.page() * 2;
        let for_pages = device.free_bytes()?.saturating_sub(PARTIAL_BYTES_MAX) / PAGES_SHARE;
        let pages = PageCopies::new(page_bytes, (for_pages / page_bytes).clamp(1, PAGES_MAX));
        let (memory, graphs) = (PassMemory::default(), HashMap::new());
        Ok(DeviceModel { state: Mutex::new(State { device, net, pages, memory, graphs }) })
    }

    /// Keeps at most so many copies of pages; before the first pass.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages_max: usize) {
        self.state.lock().unwrap().pages.limit(pages_max);
    }

    /// Copies of pages on the device.
    #[cfg(test)]
    pub(super) fn page_copies(&self) -> usize {
        self.state.lock().unwrap().pages.count()
    }

    /// As `Model::forward`.
    pub(crate) fn forward(
        &self,
        model: &Model,
        rows: &[Row],
        caches: &mut [&mut KvCache],
        outcome: &mut Outcome<'_>,
    ) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        // The kernels index without bounds checks; on the host a slice would panic here.
        assert!(rows.iter().all(|row| (row.token as usize) < model.shape.vocabulary), "an unknown token");
        // A panic in an earlier pass left memory that the next pass overwrites.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.run(model, rows, caches, outcome)
    }
}

fn upload(device: &dyn Device, shape: &Shape, weights: &Weights) -> Result<Net, Error> {
    let vector = |values: &[f32]| -> Result<Address, Error> {
        let address = device.allocate(values.len() * 4)?;
        device.upload(address, &bytes_of(values))?;
        Ok(address)
    };
    let optional = |values: Option<&Vec<f32>>| values.map_or(Ok(Address::NONE), |values| vector(values));
    let side_by_side = |matrices: &[&PackedMatrix]| DeviceMatrix::upload_side_by_side(device, matrices);
    let layer = |layer: &Layer| {
        Ok(NetLayer {
            attention_norm: vector(&layer.attention_norm)?,
            query_key_value: side_by_side(&[&layer.query, &layer.key, &layer.value])?,
            attention_output: side_by_side(&[&layer.attention_output])?,
            feed_forward_norm: vector(&layer.feed_forward_norm)?,
            gate_up: side_by_side(&[&layer.gate, &layer.up])?,
            down: side_by_side(&[&layer.down])?,
            bias: optional(layer.bias.as_ref())?,
            query_gain: optional(layer.head_norms.as_ref().map(|gains| &gains.0))?,
            key_gain: optional(layer.head_norms.as_ref().map(|gains| &gains.1))?,
        })
    };
    let embedding = DeviceMatrix::upload(device, &[&weights.embedding])?;
    let head = match weights.output() {
        Some(output) => DeviceMatrix::upload(device, &[output])?,
        None => embedding,
    };
    Ok(Net {
        shape: shape.clone(),
        embedding,
        head,
        output_norm: vector(&weights.output_norm)?,
        layers: weights.layers.iter().map(layer).collect::<Result<_, Error>>()?,
    })
}

impl State {
    fn run(
        &mut self,
        model: &Model,
        rows: &[Row],
        caches: &mut [&mut KvCache],
        outcome: &mut Outcome<'_>,
    ) -> Result<(), Error> {
        let wanting = |output: Output| (0..rows.len()).filter(move |row| rows[*row].output == output);
        let outputs: Vec<usize> = wanting(Output::Logits).chain(wanting(Output::Activations)).collect();
        let longest = rows.iter().map(|row| row.position).max().unwrap_or(0);
        let pass = PassShape {
            rows: rows.len(),
            outputs: outputs.len(),
            logits: wanting(Output::Logits).count(),
            tiles: (longest / PAGE_POSITIONS + 1).next_power_of_two(),
        };
        outputs.iter().enumerate().for_each(|(slot, row)| outcome.slots[*row] = slot);
        let (first_pages, pages) = self.locate_pages(rows, caches)?;
        let memory = self.reserve(pass, pages.len())?;
        let inputs = Inputs { model, rows, outputs: &outputs, first_pages: &first_pages, pages: &pages };
        self.device.upload(memory.rows, &inputs.bytes(&memory))?;
        self.launch(&memory, pass)?;
        self.collect(&memory, pass, outcome)?;
        self.store(&memory, rows, caches)
    }

    /// Copies of all pages that the rows' sequences need; per sequence the index of its first one.
    fn locate_pages(
        &mut self,
        rows: &[Row],
        caches: &[&mut KvCache],
    ) -> Result<(Vec<usize>, Vec<Address>), Error> {
        self.pages.begin_pass();
        let (mut first_pages, mut pages) = (vec![0; caches.len()], Vec::new());
        for (sequence, cache) in caches.iter().enumerate() {
            first_pages[sequence] = pages.len();
            let positions = || rows.iter().filter(|r| r.sequence == sequence).map(|r| r.position);
            let (Some(first), Some(last)) = (positions().min(), positions().max()) else { continue };
            for page in 0..=last / PAGE_POSITIONS {
                let has = if page * PAGE_POSITIONS < first { HasPositions::Yes } else { HasPositions::No };
                pages.push(self.pages.locate(&*self.device, cache.page(page), has)?);
            }
        }
        Ok((first_pages, pages))
    }

    /// Room for the pass. Graphs hold addresses, so they go when memory moves.
    fn reserve(&mut self, pass: PassShape, pages: usize) -> Result<Memory, Error> {
        let extents = Extents { shape: &self.net.shape, pass, pages };
        let (_, sizes) = extents.place([Address::NONE; 4]);
        let regions = &mut self.memory;
        let mut moved = false;
        let all = [&mut regions.inputs, &mut regions.work, &mut regions.partial, &mut regions.results];
        for (region, bytes) in all.into_iter().zip(sizes) {
            moved |= region.reserve(&*self.device, bytes)?;
        }
        if moved || self.graphs.len() >= GRAPHS_MAX {
            self.device.forget_recordings();
            self.graphs.clear();
        }
        let starts = [regions.inputs, regions.work, regions.partial, regions.results];
        Ok(extents.place(starts.map(|region| region.address)).0)
    }

    fn launch(&mut self, memory: &Memory, pass: PassShape) -> Result<(), Error> {
        if let Some(graph) = self.graphs.get(&pass) {
            return self.device.replay(*graph);
        }
        let launches = plan::launches(&self.net, memory, pass);
        if pass.rows > GRAPH_ROWS_MAX {
            return launches.iter().try_for_each(|launch| self.device.launch(launch));
        }
        let graph = self.device.record(&launches)?;
        self.graphs.insert(pass, graph);
        self.device.replay(graph)
    }

    /// Flags, final norms, logits.
    fn collect(&self, memory: &Memory, pass: PassShape, outcome: &mut Outcome<'_>) -> Result<(), Error> {
        let bad: Vec<u32> = self.words(memory.bad, pass.rows)?;
        for (flag, bad) in outcome.bad.iter().zip(bad) {
            flag.store(bad != 0, Ordering::Relaxed);
        }
        let (values, blocks) =
            (pass.outputs * self.net.shape.width, pass.outputs * self.net.shape.width / BLOCK);
        let (device, last) = (&memory.last, &mut *outcome.last);
        let floats = |from: Address, to: &mut [f32]| -> Result<(), Error> {
            let words = self.words(from, to.len())?;
            to.iter_mut().zip(words).for_each(|(to, bits)| *to = f32::from_bits(bits));
            Ok(())
        };
        floats(device.values, &mut last.values[..values])?;
        floats(device.scales, &mut last.scales[..blocks])?;
        floats(device.sums, &mut last.sums[..blocks])?;
        let sums = self.words(device.integer_sums, blocks)?;
        last.integer_sums[..blocks].iter_mut().zip(sums).for_each(|(to, word)| *to = word as i32);
        let mut quants = vec![0u8; values];
        self.device.download(device.quants, &mut quants)?;
        last.quants[..values].iter_mut().zip(quants).for_each(|(to, byte)| *to = byte as i8);
        floats(memory.logits, &mut outcome.logits[..pass.logits * self.net.shape.vocabulary])
    }

    /// New keys and values, into the host's pages: what roots, prefixes and later uploads are made of.
    fn store(&self, memory: &Memory, rows: &[Row], caches: &mut [&mut KvCache]) -> Result<(), Error> {
        let shape = &self.net.shape;
        let width = shape.kv_heads * shape.head_dim;
        let mut bytes = vec![0u8; rows.len() * shape.layers * 4 * width];
        self.device.download(memory.stored, &mut bytes)?;
        let halves: Vec<u16> =
            bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
        let caches: Vec<_> = caches.iter_mut().map(|cache| cache.shared()).collect();
        for (row, own) in rows.iter().zip(halves.chunks_exact(shape.layers * 2 * width)) {
            for (layer, both) in own.chunks_exact(2 * width).enumerate() {
                let (keys, values) = both.split_at(width);
                let heads = keys.chunks_exact(shape.head_dim).zip(values.chunks_exact(shape.head_dim));
                for (head, (key, value)) in heads.enumerate() {
                    // SAFETY: this thread alone has the caches.
                    unsafe { caches[row.sequence].store(layer, head, row.position, key, value) };
                }
            }
        }
        Ok(())
    }

    fn words(&self, from: Address, count: usize) -> Result<Vec<u32>, Error> {
        let mut bytes = vec![0u8; count * 4];
        self.device.download(from, &mut bytes)?;
        Ok(bytes
            .chunks_exact(4)
            .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect())
    }
}

/// What a pass sends up, as one piece.
struct Inputs<'p> {
    model: &'p Model,
    rows: &'p [Row],
    outputs: &'p [usize],
    first_pages: &'p [usize],
    pages: &'p [Address],
}

impl Inputs<'_> {
    fn bytes(&self, memory: &Memory) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut part = |at: Address, words: &mut dyn Iterator<Item = u32>| {
            bytes.resize((at.0 - memory.rows.0) as usize, 0);
            words.for_each(|word| bytes.extend(word.to_le_bytes()));
        };
        let row = |row: &Row| [row.token, row.position as u32, self.first_pages[row.sequence] as u32, 0];
        part(memory.rows, &mut self.rows.iter().flat_map(row));
        part(memory.index, &mut self.outputs.iter().map(|row| *row as u32));
        let angles = |row: &Row| {
            let (cos, sin) = self.model.rope.at(row.position);
            cos.iter().chain(sin).map(|angle| angle.to_bits()).collect::<Vec<u32>>()
        };
        part(memory.angles, &mut self.rows.iter().flat_map(angles));
        part(memory.pages, &mut self.pages.iter().flat_map(|page| [page.0 as u32, (page.0 >> 32) as u32]));
        bytes
    }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
