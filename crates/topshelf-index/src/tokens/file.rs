//! Files of token vectors: [`TokenFileBuilder`] makes them, [`TokenFile`] maps them.
//!
//! Layout, little-endian, each section padded with zeros to a multiple of 64 bytes:
//!
//! ```text
//! header   "TSHTOK" 0x00 0x01 | tier u32 (0 f16, 1 int8, 2 4bit, 3 2bit) | CRC-32 u32 of all that
//!          follows the header | passages u64 | dimension u64 | vectors u64 | bytes of codes u64 |
//!          centroids u64 | bytes of lists u64
//! keys     u64 for each passage, ascending
//! hashes   2 x u64 for each passage: its text's hash, ascending
//! order    u32 for each hash: its passage's place
//! vectors  u64 for each passage and one more: where its vectors begin
//! places   u64 for each passage and one more: where its codes begin
//! cut      u32 for each passage: tokens that were not read
//! ids      u16 for each vector: its centroid      (where there are centroids)
//! scales   u16 for each vector: binary16          (int8 only)
//! stretch  u16 for each vector: binary16          (all but f16)
//! codes    as the kernels of `topshelf_kernels::max_sim` read them
//! lists    u64 for each centroid and one more: where its list begins in what follows  (where there
//!          are lists)
//! rows     the lists: see `lists`
//! ```
//!
//! Files of format 2 have no lists, and ids in 4bit and 2bit alone; passages in them are found by looking at
//! each. They get lists when they are written anew.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use topshelf_core::TokenVectors;
use topshelf_kernels::mapped::MappedFile;

use super::codebook::{Coded, Coder, Fit};
use super::lists::{Lists, Rows};
use super::{TextHash, Tier};
use crate::error::{IndexError, Result};

const MAGIC: [u8; 8] = *b"TSHTOK\x00\x01";
const ALIGNMENT: usize = 64;

/// Bytes of codes from which a file is closed and the next one begun.
pub(crate) const FULL: usize = 256 << 20;

/// What a file is, as the state has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) tier: Tier,
    pub(crate) dimension: usize,
    pub(crate) passages: usize,
    pub(crate) vectors: usize,
    pub(crate) bytes: usize,
    /// Centroids that lists are of; 0 where there are no lists.
    pub(crate) centroids: usize,
    /// Bytes of lists.
    pub(crate) lists: usize,
}

/// Where the sections begin.
struct Sections {
    keys: usize,
    hashes: usize,
    order: usize,
    vectors: usize,
    places: usize,
    cut: usize,
    ids: usize,
    scales: usize,
    stretches: usize,
    codes: usize,
    lists: usize,
    rows: usize,
    end: usize,
}

impl Shape {
    /// Bytes of the whole file.
    pub(crate) fn len(self) -> usize {
        self.sections().end
    }

    /// What the header says of it.
    fn numbers(self) -> [u64; 6] {
        let Self { passages, dimension, vectors, bytes, centroids, lists, .. } = self;
        [passages, dimension, vectors, bytes, centroids, lists].map(|number| number as u64)
    }

    fn sections(self) -> Sections {
        let mut next = ALIGNMENT;
        let mut section = |bytes: usize| {
            let start = next;
            next = (next + bytes).next_multiple_of(ALIGNMENT);
            start
        };
        let Self { tier, passages, vectors, bytes, centroids, lists, .. } = self;
        let of_each = |there: bool| if there { 2 * vectors } else { 0 };
        let ids = of_each(tier.bits().is_some() || centroids > 0);
        let (scales, stretches) = (of_each(tier == Tier::Int8), of_each(tier != Tier::F16));
        Sections {
            keys: section(8 * passages),
            hashes: section(16 * passages),
            order: section(4 * passages),
            vectors: section(8 * (passages + 1)),
            places: section(8 * (passages + 1)),
            cut: section(4 * passages),
            ids: section(ids),
            scales: section(scales),
            stretches: section(stretches),
            codes: section(bytes),
            lists: section(if centroids > 0 { 8 * (centroids + 1) } else { 0 }),
            rows: section(lists),
            end: next,
        }
    }
}

/// Collects passages and writes them as one file.
pub(crate) struct TokenFileBuilder {
    tier: Tier,
    dimension: usize,
    /// Centroids that ids are of; 0 where lists cannot be made.
    centroids: usize,
    keys: Vec<u64>,
    hashes: Vec<TextHash>,
    starts: Vec<u64>,
    places: Vec<u64>,
    cut: Vec<u32>,
    coded: Coded,
}

impl TokenFileBuilder {
    pub(crate) fn new(tier: Tier, dimension: usize, centroids: usize) -> Self {
        Self {
            tier,
            dimension,
            centroids,
            keys: Vec::new(),
            hashes: Vec::new(),
            starts: vec![0],
            places: vec![0],
            cut: Vec::new(),
            coded: Coded::default(),
        }
    }

    /// The passages that were added.
    pub(crate) fn passages(&self) -> usize {
        self.keys.len()
    }

    /// The centroids that ids are of.
    pub(crate) fn centroids(&self) -> usize {
        self.centroids
    }

    /// Bytes of codes.
    pub(crate) fn bytes(&self) -> usize {
        self.coded.codes.len()
    }

    fn shape(&self, lists: &Lists) -> Shape {
        Shape {
            tier: self.tier,
            dimension: self.dimension,
            passages: self.passages(),
            vectors: self.starts.last().map_or(0, |end| *end as usize),
            bytes: self.bytes(),
            centroids: lists.starts.len().saturating_sub(1),
            lists: lists.bytes.len(),
        }
    }

    /// Adds a passage; keys must ascend. Without a coder, which an f16 index of format 2 lacks, its
    /// vectors are stored as they are; the answer is how well it meets them.
    pub(crate) fn push(
        &mut self,
        (key, hash): (u64, TextHash),
        vectors: &TokenVectors,
        coder: Option<&Coder>,
    ) -> Fit {
        let values = &vectors.values;
        let fit = if let Some(coder) = coder {
            coder.encode(values, &mut self.coded)
        } else {
            self.coded.push_halves(values, self.dimension);
            Fit::default()
        };
        self.end(key, hash, vectors.count() as u64, vectors.truncated_tokens as u32);
        fit
    }

    /// Adds a passage of a file as it is stored there.
    pub(crate) fn push_stored(&mut self, file: &TokenFile, row: usize) {
        let stored = file.passage(row);
        self.coded.ids.extend_from_slice(stored.ids);
        self.coded.scales.extend_from_slice(stored.scales);
        self.coded.stretches.extend_from_slice(stored.stretches);
        self.coded.codes.extend_from_slice(stored.codes);
        let vectors = stored.vectors as u64;
        self.end(file.keys()[row], file.hash_of(row), vectors, stored.cut as u32);
    }

    fn end(&mut self, key: u64, hash: TextHash, vectors: u64, cut: u32) {
        debug_assert!(self.keys.last().is_none_or(|last| *last < key));
        self.keys.push(key);
        self.hashes.push(hash);
        let start = self.starts.last().copied().unwrap_or_default();
        self.starts.push(start + vectors);
        self.places.push(self.coded.codes.len() as u64);
        self.cut.push(cut);
    }

    /// Writes and syncs the file.
    pub(crate) fn write(&self, path: &Path) -> Result<Shape> {
        let vectors = self.starts.last().map_or(0, |end| *end as usize);
        let lists = if self.centroids > 0 && self.coded.ids.len() == vectors {
            Lists::of(&self.coded.ids, &self.starts, self.centroids)
        } else {
            Lists::default()
        };
        let shape = self.shape(&lists);
        let mut order: Vec<u32> = (0..self.keys.len() as u32).collect();
        order.sort_by_key(|&row| self.hashes[row as usize]);
        let hashes = order.iter().flat_map(|&row| self.hashes[row as usize].0);
        let halves = |halves: &[u16]| bytes_of(halves.iter().map(|half| half.to_le_bytes()));
        let sections: [Vec<u8>; 9] = [
            bytes_of(self.keys.iter().map(|key| key.to_le_bytes())),
            bytes_of(hashes.map(u64::to_le_bytes)),
            bytes_of(order.iter().map(|row| row.to_le_bytes())),
            bytes_of(self.starts.iter().map(|start| start.to_le_bytes())),
            bytes_of(self.places.iter().map(|place| place.to_le_bytes())),
            bytes_of(self.cut.iter().map(|cut| cut.to_le_bytes())),
            halves(&self.coded.ids),
            halves(&self.coded.scales),
            halves(&self.coded.stretches),
        ];
        let starts = bytes_of(lists.starts.iter().map(|start| start.to_le_bytes()));
        let behind = [self.coded.codes.as_slice(), &starts, &lists.bytes];
        let all = sections.iter().map(Vec::as_slice).chain(behind);
        let padding = |section: &[u8]| section.len().next_multiple_of(ALIGNMENT) - section.len();
        let zeros = [0; ALIGNMENT];
        let mut crc32 = crc32fast::Hasher::new();
        for section in all.clone() {
            crc32.update(section);
            crc32.update(&zeros[..padding(section)]);
        }
        let mut header = Vec::with_capacity(ALIGNMENT);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&(self.tier as u32).to_le_bytes());
        header.extend_from_slice(&crc32.finalize().to_le_bytes());
        header.extend(shape.numbers().into_iter().flat_map(u64::to_le_bytes));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(path)?;
            file.write_all(&header)?;
            for section in all {
                file.write_all(section)?;
                file.write_all(&zeros[..padding(section)])?;
            }
            file.sync_all()
        };
        write().map_err(IndexError::io("cannot write", path))?;
        Ok(shape)
    }
}

fn bytes_of<const N: usize>(numbers: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    numbers.flatten().collect()
}

/// One passage's vectors as they are stored.
pub(crate) struct Stored<'a> {
    /// How many vectors.
    pub(crate) vectors: usize,
    /// Tokens that were not read.
    pub(crate) cut: usize,
    pub(crate) ids: &'a [u16],
    pub(crate) scales: &'a [u16],
    pub(crate) stretches: &'a [u16],
    pub(crate) codes: &'a [u8],
    /// The codes of other types.
    pub(crate) halves: &'a [u16],
    pub(crate) integers: &'a [i8],
}

/// A mapped file of token vectors.
pub(crate) struct TokenFile {
    file: MappedFile,
    path: PathBuf,
    shape: Shape,
    sections: Sections,
}

impl TokenFile {
    /// Maps the file and checks its header and length, not its content.
    pub(crate) fn open(path: &Path, shape: Shape) -> Result<Self> {
        let file = MappedFile::open(path).map_err(IndexError::io("cannot open", path))?;
        let damaged =
            |reason: &str| IndexError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let bytes = file.bytes();
        if bytes.len() < ALIGNMENT || bytes[..8] != MAGIC {
            return Err(damaged("it is no file of token vectors"));
        }
        let found = [16, 24, 32, 40, 48, 56].map(|at| field(bytes, at));
        if bytes[8] != shape.tier as u8 || found != shape.numbers() {
            return Err(damaged("it holds other token vectors"));
        }
        let sections = shape.sections();
        if bytes.len() != sections.end {
            return Err(damaged("its length is wrong"));
        }
        Ok(Self { file, path: path.to_owned(), shape, sections })
    }

    /// Compares the checksum of the whole content.
    pub(crate) fn verify(&self) -> Result<()> {
        let bytes = self.file.bytes();
        let expected = [bytes[12], bytes[13], bytes[14], bytes[15]];
        if crc32fast::hash(&bytes[ALIGNMENT..]) == u32::from_le_bytes(expected) {
            return Ok(());
        }
        Err(self.damaged("its checksum does not match its content"))
    }

    /// The error that says what is wrong with it.
    pub(crate) fn damaged(&self, reason: &str) -> IndexError {
        IndexError::Damaged { path: self.path.clone(), reason: reason.to_owned() }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The key of each passage, ascending.
    pub(crate) fn keys(&self) -> &[u64] {
        self.file.slice_u64(self.sections.keys, self.shape.passages)
    }

    /// Whether there are lists.
    pub(crate) fn has_lists(&self) -> bool {
        self.shape.centroids > 0
    }

    fn has_ids(&self) -> bool {
        self.shape.tier.bits().is_some() || self.has_lists()
    }

    fn hash_at(&self, place: usize) -> TextHash {
        let words = self.file.slice_u64(self.sections.hashes + 16 * place, 2);
        TextHash([words[0], words[1]])
    }

    fn order(&self) -> &[i32] {
        self.file.slice_i32(self.sections.order, self.shape.passages)
    }

    /// The hash of a passage's text.
    fn hash_of(&self, row: usize) -> TextHash {
        let place = self.order().iter().position(|own| *own as usize == row);
        self.hash_at(place.unwrap_or_default())
    }

    /// The place of a passage with that text.
    pub(crate) fn find(&self, hash: TextHash) -> Option<usize> {
        let (mut low, mut high) = (0, self.shape.passages);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.hash_at(middle) < hash {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let found = low < self.shape.passages && self.hash_at(low) == hash;
        found.then(|| self.order()[low] as usize).filter(|row| *row < self.shape.passages)
    }

    /// The places of the passages that have a vector near a centroid, ascending; `None` where there are no
    /// lists.
    pub(crate) fn near(&self, centroid: usize) -> Option<Rows<'_>> {
        if centroid >= self.shape.centroids {
            return None;
        }
        let ends = self.file.slice_u64(self.sections.lists + 8 * centroid, 2);
        let start = (ends[0] as usize).min(self.shape.lists);
        let end = (ends[1] as usize).clamp(start, self.shape.lists);
        let bytes = self.file.slice_u8(self.sections.rows + start, end - start);
        Some(Rows::new(bytes, self.shape.passages))
    }

    /// A passage's vectors. What a damaged file says of their places is kept within the file.
    pub(crate) fn passage(&self, row: usize) -> Stored<'_> {
        let &Sections { vectors, places, cut, ids, scales, stretches, codes, .. } = &self.sections;
        let within = |at: usize, most: usize| {
            let ends = self.file.slice_u64(at + 8 * row, 2);
            let start = (ends[0] as usize).min(most);
            start..(ends[1] as usize).clamp(start, most)
        };
        let own = within(vectors, self.shape.vectors);
        let bytes = within(places, self.shape.bytes);
        let mut stored = Stored {
            vectors: own.len(),
            cut: self.file.slice_i32(cut + 4 * row, 1)[0] as usize,
            ids: &[],
            scales: &[],
            stretches: &[],
            codes: self.file.slice_u8(codes + bytes.start, bytes.len()),
            halves: &[],
            integers: &[],
        };
        let halves = |at: usize| self.file.slice_u16(at + 2 * own.start, own.len());
        if self.has_ids() {
            stored.ids = halves(ids);
        }
        match self.shape.tier {
            Tier::F16 => {
                stored.halves = self.file.slice_u16(codes + bytes.start, bytes.len() / 2);
            }
            Tier::Int8 => {
                stored.scales = halves(scales);
                stored.stretches = halves(stretches);
                stored.integers = self.file.slice_i8(codes + bytes.start, bytes.len());
            }
            Tier::FourBits | Tier::TwoBits => stored.stretches = halves(stretches),
        }
        stored
    }
}

fn field(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
