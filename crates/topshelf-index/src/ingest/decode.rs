//! Bytes to text: whole files at once, and records by a stream.
//!
//! UTF-8 is taken as it is, UTF-16 by its byte order mark. Anything else is either UTF-8 with
//! damage, whose bad places become U+FFFD, or a legacy encoding: the one that an HTML page
//! declares, otherwise the one that chardetng guesses. Damage and guesses are told.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Decoder, Encoding, ISO_2022_JP, UTF_8};

use super::skip::WarningReason;

/// What is looked at to tell the encoding of a file of records, from its first byte that is no
/// UTF-8 on.
const SAMPLE: usize = 1 << 20;

/// Bytes read at a time.
const CHUNK: usize = 1 << 16;

/// The text, and what was lost in making it. `declared` is the encoding that the file itself
/// names; it counts where the bytes are no UTF-8.
pub(super) fn decode(
    bytes: Vec<u8>,
    declared: Option<&'static Encoding>,
) -> (String, Option<WarningReason>) {
    if let Some((encoding, mark)) = Encoding::for_bom(&bytes)
        && encoding != UTF_8
    {
        let (text, damaged) = encoding.decode_without_bom_handling(&bytes[mark..]);
        let lossy = damaged.then(|| broken_as(encoding, &text));
        return (text.into_owned(), lossy);
    }
    let bytes = match String::from_utf8(bytes) {
        Ok(mut text) => {
            if text.starts_with('\u{feff}') {
                text.drain(..'\u{feff}'.len_utf8());
            }
            // Seven bits, switched between alphabets by escapes.
            if !text.contains("\u{1b}$B") {
                return (text, None);
            }
            text.into_bytes()
        }
        Err(error) => error.into_bytes(),
    };
    let Some(encoding) = declared.or_else(|| legacy(&bytes)) else {
        let lossy = broken(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        return (text.to_owned(), lossy);
    };
    let (text, damaged) = encoding.decode_without_bom_handling(&bytes);
    let lossy = if damaged {
        Some(broken_as(encoding, &text))
    } else if declared.is_some() {
        None
    } else {
        Some(WarningReason::Guessed { encoding: encoding.name().to_owned() })
    };
    (text.into_owned(), lossy)
}

/// The encoding that an HTML page declares in its first bytes, if it is not UTF-8.
pub(super) fn declared_by_html(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).to_lowercase();
    let (_, after) = head.split_once("charset=")?;
    let label = after.trim_start_matches(['"', '\'', ' ']);
    let end = label.find(['"', '\'', ' ', '>', ';', '/']).unwrap_or(label.len());
    // A page that says UTF-16 in letters of one byte each is not.
    Encoding::for_label(&label.as_bytes()[..end]).filter(|encoding| {
        (*encoding != UTF_8 && encoding.is_ascii_compatible()) || *encoding == ISO_2022_JP
    })
}

/// A file of records as UTF-8, except for damaged places, and what is to be told of its encoding.
///
/// # Errors
///
/// What the system answers when the file cannot be read.
pub(super) fn open(path: &Path) -> io::Result<(Box<dyn Read>, Option<WarningReason>)> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(3).read_to_end(&mut head)?;
    if let Some((encoding, mark)) = Encoding::for_bom(&head) {
        file.seek(SeekFrom::Start(mark as u64))?;
        let reader: Box<dyn Read> = if encoding == UTF_8 {
            Box::new(file)
        } else {
            Box::new(Transcoded::new(file, encoding))
        };
        return Ok((reader, None));
    }
    file.rewind()?;
    let legacy = sample(&mut file)?.and_then(|sample| legacy(&sample));
    file.rewind()?;
    Ok(match legacy {
        None => (Box::new(file), None),
        Some(encoding) => {
            let told = WarningReason::Guessed { encoding: encoding.name().to_owned() };
            (Box::new(Transcoded::new(file, encoding)), Some(told))
        }
    })
}

/// The text around the first byte that is no UTF-8; `None` if there is no such byte, or if there
/// was whole UTF-8 beyond ASCII long before it.
fn sample(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let mut window = Vec::new();
    loop {
        let read = file.by_ref().take(CHUNK as u64).read_to_end(&mut window)?;
        let (valid, is_cut) = match std::str::from_utf8(&window) {
            Ok(text) => (text.len(), true),
            // A character may be cut by the window.
            Err(error) => (error.valid_up_to(), error.error_len().is_none() && read > 0),
        };
        if !is_cut {
            file.take(SAMPLE as u64).read_to_end(&mut window)?;
            return Ok(Some(window));
        }
        if read == 0 || !window[..valid].is_ascii() {
            return Ok(None);
        }
        window.drain(..valid);
    }
}

/// The legacy encoding that bytes which are no UTF-8 have; `None` if they are UTF-8 with damage.
fn legacy(bytes: &[u8]) -> Option<&'static Encoding> {
    if is_damaged_utf8(bytes) {
        return None;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    Some(detector.guess(None, Utf8Detection::Deny))
}

/// Whether at least as many sequences beyond ASCII are whole as are damaged. Where none is whole, a
/// few bytes that no Western text has are damage, and all others letters of a legacy encoding.
fn is_damaged_utf8(bytes: &[u8]) -> bool {
    let (mut whole, mut damaged, mut strange) = (0, 0, 0);
    for chunk in bytes.utf8_chunks() {
        whole += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        damaged += usize::from(!chunk.invalid().is_empty());
        strange += chunk.invalid().iter().filter(|byte| is_strange(**byte)).count();
    }
    if whole > 0 { whole >= damaged } else { strange > 0 && damaged * 10 < bytes.len() }
}

/// Bytes that are unassigned in windows-1252, or letters that are rarer than damage.
fn is_strange(byte: u8) -> bool {
    matches!(byte, 0x81 | 0x8D | 0x8F | 0x90 | 0x9D | 0xFE | 0xFF)
}

/// The damage of bytes that are UTF-8 otherwise; `None` if there is none.
pub(super) fn broken(bytes: &[u8]) -> Option<WarningReason> {
    let at = std::str::from_utf8(bytes).err()?.valid_up_to();
    let places = bytes.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
    Some(WarningReason::BrokenUtf8 { at, places })
}

fn broken_as(encoding: &'static Encoding, text: &str) -> WarningReason {
    let places = text.matches('\u{fffd}').count();
    WarningReason::Damaged { encoding: encoding.name().to_owned(), places }
}

/// A reader of another encoding, as UTF-8.
struct Transcoded {
    file: File,
    decoder: Decoder,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Where the unread part of `output` starts.
    at: usize,
    is_done: bool,
}

impl Transcoded {
    fn new(file: File, encoding: &'static Encoding) -> Self {
        let decoder = encoding.new_decoder_without_bom_handling();
        Self { file, decoder, input: vec![0; CHUNK], output: Vec::new(), at: 0, is_done: false }
    }
}

impl Read for Transcoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.output.len() {
            if self.is_done {
                return Ok(0);
            }
            let length = self.file.read(&mut self.input)?;
            self.is_done = length == 0;
            let longest = self.decoder.max_utf8_buffer_length(length).ok_or_else(|| {
                io::Error::other("the text is too long for this machine's memory")
            })?;
            self.output.resize(longest, 0);
            let input = &self.input[..length];
            let (_, _, written, _) =
                self.decoder.decode_to_utf8(input, &mut self.output, self.is_done);
            self.output.truncate(written);
            self.at = 0;
        }
        let length = buffer.len().min(self.output.len() - self.at);
        buffer[..length].copy_from_slice(&self.output[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(encoding: &str) -> WarningReason {
        WarningReason::Guessed { encoding: encoding.into() }
    }

    #[test]
    fn encodings() {
        assert_eq!(decode("naïve".into(), None), ("naïve".into(), None));
        assert_eq!(decode(b"\xef\xbb\xbfx".to_vec(), None), ("x".into(), None));
        assert_eq!(decode(b"\xff\xfeh\x00i\x00".to_vec(), None), ("hi".into(), None));
        let german = "Die Prüfung der Größe übersteigt natürlich die Möglichkeiten der Köche.";
        let (latin, ..) = encoding_rs::WINDOWS_1252.encode(german);
        assert_eq!(
            decode(latin.into_owned(), None),
            (german.into(), Some(guessed("windows-1252")))
        );
        let japanese = "吾輩は猫である。名前はまだ無い。";
        let (sjis, ..) = encoding_rs::SHIFT_JIS.encode(japanese);
        assert_eq!(decode(sjis.into_owned(), None), (japanese.into(), Some(guessed("Shift_JIS"))));
        let (escapes, ..) = ISO_2022_JP.encode(japanese);
        assert_eq!(
            decode(escapes.into_owned(), None),
            (japanese.into(), Some(guessed("ISO-2022-JP")))
        );
    }

    #[test]
    fn a_few_accents_in_a_long_english_text_are_no_damage() {
        let english =
            format!("{} at the café\u{2019}s door. {0}", "Plain words all along. ".repeat(200));
        let (bytes, ..) = encoding_rs::WINDOWS_1252.encode(&english);
        assert_eq!(decode(bytes.into_owned(), None), (english, Some(guessed("windows-1252"))));
    }

    #[test]
    fn broken_utf8_is_told_with_its_place() {
        let mut bytes = "größer \u{fffd} und schöner".as_bytes().to_vec();
        bytes.push(0xff);
        let (text, lossy) = decode(bytes, None);
        assert!(text.ends_with("schöner\u{fffd}"));
        assert_eq!(lossy, Some(WarningReason::BrokenUtf8 { at: 25, places: 1 }));
        let ascii = b"Nothing but ASCII here, and two bytes \xff\xfe of damage.".to_vec();
        let (_, lossy) = decode(ascii, None);
        assert_eq!(lossy, Some(WarningReason::BrokenUtf8 { at: 38, places: 2 }));
        let (text, lossy) = decode(b"\xff\xfeh\x00\x00\xd8i\x00".to_vec(), None);
        assert_eq!(text, "h\u{fffd}i");
        let damaged = WarningReason::Damaged { encoding: "UTF-16LE".into(), places: 1 };
        assert_eq!(lossy, Some(damaged));
    }

    #[test]
    fn a_page_says_its_encoding() {
        let declared = |html: &[u8]| declared_by_html(html).map(Encoding::name);
        assert_eq!(declared(b"<meta charset=\"koi8-r\">"), Some("KOI8-R"));
        let long = b"<META http-equiv=Content-Type content='text/html; charset=ISO-8859-2'>";
        assert_eq!(declared(long), Some("ISO-8859-2"));
        assert_eq!(declared(b"<meta charset=utf-8>"), None);
        assert_eq!(declared(b"<p>no"), None);
        let russian = "<meta charset=koi8-r><p>Блоха";
        let (bytes, ..) = encoding_rs::KOI8_R.encode(russian);
        let encoding = declared_by_html(&bytes);
        assert_eq!(decode(bytes.into_owned(), encoding), (russian.into(), None));
    }

    #[test]
    fn streams() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.csv");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let (mut reader, told) = open(&path).unwrap();
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            (String::from_utf8_lossy(&text).into_owned(), told)
        };
        // The accent stands far from the beginning, across a window's end, or at the file's.
        for before in [0, 10, CHUNK - 1, CHUNK, 3 * CHUNK] {
            let text = format!("{}é, naïve Größe", "a".repeat(before));
            assert_eq!(read(text.as_bytes()), (text.clone(), None));
            let (latin, ..) = encoding_rs::WINDOWS_1252.encode(&text);
            assert_eq!(read(&latin), (text, Some(guessed("windows-1252"))));
        }
        let wide: Vec<u8> =
            "\u{feff}größe, 漢字".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(read(&wide), ("größe, 漢字".into(), None));
        assert_eq!(read("\u{feff}x".as_bytes()), ("x".into(), None));
        assert_eq!(read(b""), (String::new(), None));
    }
}
