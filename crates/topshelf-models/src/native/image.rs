//! The packed weights of a model as one block of bytes, in memory or in a file that is mapped:
//! [`Image`].
//!
//! ```text
//! magic "TSIMAGE1", header length (u64, little-endian), header (JSON), then the tensors
//! ```
//!
//! The header says what the image was made of ([`Image::open`] refuses one of anything else) and
//! where each tensor lies: element type, place in bytes from the start of the file (a multiple
//! of 64) and number of elements. Tensors are little-endian. Files are written under another
//! name, synced and renamed, so a file is whole or is not there; its content is trusted as far as
//! the store's files are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use topshelf_kernels::mapped::MappedFile;

const MAGIC: &[u8; 8] = b"TSIMAGE1";

/// Tensors begin at multiples of this: a cache line.
const ALIGNMENT: usize = 64;

/// Where a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    kind: Kind,
    at: usize,
    len: usize,
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    U8,
    I8,
    U16,
    I32,
    F32,
}

impl Kind {
    const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 => 2,
            Self::I32 | Self::F32 => 4,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// What the image was made of, and how.
    made_of: String,
    tensors: BTreeMap<String, Place>,
}

/// Packed weights.
pub(crate) struct Image {
    bytes: MappedFile,
    /// Where the tensors begin; places count from there.
    base: usize,
    tensors: BTreeMap<String, Place>,
}

impl Image {
    /// Maps the file, if it is an image of that.
    pub(crate) fn open(path: &Path, made_of: &str) -> io::Result<Self> {
        Self::of(MappedFile::open(path)?, made_of)
    }

    fn of(bytes: MappedFile, made_of: &str) -> io::Result<Self> {
        let damaged = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
        let all = bytes.bytes();
        let start = all
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.first_chunk::<8>())
            .ok_or_else(|| damaged("it is no image of packed weights"))?;
        let length = usize::try_from(u64::from_le_bytes(*start)).unwrap_or(usize::MAX);
        let header = all[16..].get(..length).ok_or_else(|| damaged("its header is cut off"))?;
        let header: Header = serde_json::from_slice(header)
            .map_err(|error| damaged(&format!("its header cannot be read: {error}")))?;
        if header.made_of != made_of {
            return Err(damaged("it is an image of other weights"));
        }
        let base = (16 + length).next_multiple_of(ALIGNMENT);
        for (name, place) in &header.tensors {
            let end =
                place.len.checked_mul(place.kind.bytes()).and_then(|n| n.checked_add(place.at));
            if end.and_then(|end| end.checked_add(base)).is_none_or(|end| end > all.len())
                || !place.at.is_multiple_of(ALIGNMENT)
            {
                return Err(damaged(&format!("tensor {name} lies outside of it")));
            }
        }
        Ok(Self { bytes, base, tensors: header.tensors })
    }

    /// Where the tensor of that name lies.
    pub(crate) fn place(&self, name: &str) -> Option<Place> {
        self.tensors.get(name).copied()
    }

    pub(crate) fn u8(&self, place: Place) -> &[u8] {
        self.bytes.slice_u8(self.base + place.at, place.len)
    }

    pub(crate) fn i8(&self, place: Place) -> &[i8] {
        self.bytes.slice_i8(self.base + place.at, place.len)
    }

    pub(crate) fn u16(&self, place: Place) -> &[u16] {
        self.bytes.slice_u16(self.base + place.at, place.len)
    }

    pub(crate) fn i32(&self, place: Place) -> &[i32] {
        self.bytes.slice_i32(self.base + place.at, place.len)
    }

    pub(crate) fn f32(&self, place: Place) -> &[f32] {
        self.bytes.slice_f32(self.base + place.at, place.len)
    }
}

/// An image in the making.
pub(crate) struct ImageWriter {
    header: Header,
    tensors: Vec<u8>,
}

impl ImageWriter {
    pub(crate) fn new(made_of: &str) -> Self {
        let header = Header { made_of: made_of.to_owned(), tensors: BTreeMap::new() };
        Self { header, tensors: Vec::new() }
    }

    pub(crate) fn u8(&mut self, name: &str, values: &[u8]) {
        self.add(name, Kind::U8, values, |value| [*value]);
    }

    pub(crate) fn i8(&mut self, name: &str, values: &[i8]) {
        self.add(name, Kind::I8, values, |value| value.to_le_bytes());
    }

    pub(crate) fn u16(&mut self, name: &str, values: &[u16]) {
        self.add(name, Kind::U16, values, |value| value.to_le_bytes());
    }

    pub(crate) fn i32(&mut self, name: &str, values: &[i32]) {
        self.add(name, Kind::I32, values, |value| value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, name: &str, values: &[f32]) {
        self.add(name, Kind::F32, values, |value| value.to_le_bytes());
    }

    fn add<T, const N: usize>(
        &mut self,
        name: &str,
        kind: Kind,
        values: &[T],
        bytes: impl Fn(&T) -> [u8; N],
    ) {
        let at = self.tensors.len().next_multiple_of(ALIGNMENT);
        self.tensors.resize(at, 0);
        self.tensors.extend(values.iter().flat_map(bytes));
        self.header.tensors.insert(name.to_owned(), Place { kind, at, len: values.len() });
    }

    /// Writes the image to the file and maps it; where that fails, it stays in memory.
    pub(crate) fn finish(self, path: &Path) -> io::Result<Image> {
        let made_of = self.header.made_of.clone();
        let bytes = self.bytes()?;
        match write(path, &bytes).and_then(|()| Image::open(path, &made_of)) {
            Ok(image) => Ok(image),
            Err(_) => Image::of(MappedFile::of_bytes(&bytes)?, &made_of),
        }
    }

    fn bytes(self) -> io::Result<Vec<u8>> {
        let header = serde_json::to_vec(&self.header)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend(self.tensors);
        Ok(bytes)
    }
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // A store may be shared: readable for whom the umask lets read, not for the writer alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> ImageWriter {
        let mut writer = ImageWriter::new("a");
        writer.i8("codes", &[-1, 127, -128]);
        writer.f32("scales", &[0.5, -2.0]);
        writer.i32("sums", &[-70_000]);
        writer.u16("halves", &[65_535, 1]);
        writer.u8("bytes", &[]);
        writer
    }

    fn check(image: &Image) {
        assert_eq!(image.i8(image.place("codes").unwrap()), [-1, 127, -128]);
        assert_eq!(image.f32(image.place("scales").unwrap()), [0.5, -2.0]);
        assert_eq!(image.i32(image.place("sums").unwrap()), [-70_000]);
        assert_eq!(image.u16(image.place("halves").unwrap()), [65_535, 1]);
        assert!(image.u8(image.place("bytes").unwrap()).is_empty());
        assert!(image.place("others").is_none());
    }

    #[test]
    fn what_is_written_is_read_from_a_file_and_from_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        check(&writer().finish(&path).unwrap());
        check(&Image::open(&path, "a").unwrap());
        check(&writer().finish(&dir.path().join("no such folder/image")).unwrap());
        assert!(Image::open(&path, "b").is_err(), "an image of other weights");
    }

    #[test]
    fn a_cut_file_is_refused() {
        let whole = writer().bytes().unwrap();
        for length in 0..whole.len() {
            let cut = MappedFile::of_bytes(&whole[..length]).unwrap();
            assert!(Image::of(cut, "a").is_err(), "cut to {length} bytes");
        }
    }
}
