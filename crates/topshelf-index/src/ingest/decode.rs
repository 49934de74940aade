//! Bytes to text.
//!
//! UTF-8 is taken as it is, UTF-16 by its byte order mark. Anything else is either UTF-8 with
//! damage (most of what is not ASCII decodes), whose bad places become U+FFFD, or a legacy
//! encoding, which chardetng guesses. Either is told.

use chardetng::EncodingDetector;
use encoding_rs::{Encoding, UTF_8};

use super::skip::WarningReason;

/// The text, and what was lost in making it.
pub(super) fn decode(bytes: Vec<u8>) -> (String, Option<WarningReason>) {
    if let Some((encoding, mark)) = Encoding::for_bom(&bytes) {
        let (text, damaged) = encoding.decode_without_bom_handling(&bytes[mark..]);
        let lossy = damaged.then(|| broken(&bytes));
        return (text.into_owned(), lossy);
    }
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return (text, None),
        Err(error) => error.into_bytes(),
    };
    if mostly_utf8(&bytes) {
        let lossy = broken(&bytes);
        return (String::from_utf8_lossy(&bytes).into_owned(), Some(lossy));
    }
    let mut detector = EncodingDetector::new(chardetng::Iso2022JpDetection::Allow);
    detector.feed(&bytes, true);
    let encoding = detector.guess(None, chardetng::Utf8Detection::Deny);
    let (text, _) = encoding.decode_without_bom_handling(&bytes);
    let name = encoding.name().to_owned();
    (text.into_owned(), Some(WarningReason::Guessed { encoding: name }))
}

/// Whether more sequences beyond ASCII are whole than damaged.
fn mostly_utf8(bytes: &[u8]) -> bool {
    let (text, _) = UTF_8.decode_without_bom_handling(bytes);
    let beyond = text.chars().filter(|c| !c.is_ascii());
    let (damaged, whole): (Vec<char>, Vec<char>) = beyond.partition(|c| *c == '\u{fffd}');
    // A single damaged byte in plain ASCII says nothing of the encoding; damage is likelier
    // than a legacy file with one accent only if the rest is long.
    whole.len() > damaged.len() || (whole.is_empty() && damaged.len() * 500 < bytes.len())
}

fn broken(bytes: &[u8]) -> WarningReason {
    let at = std::str::from_utf8(bytes).err().map_or(0, |error| error.valid_up_to());
    let places = String::from_utf8_lossy(bytes).matches('\u{fffd}').count();
    WarningReason::BrokenUtf8 { at, places }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        assert_eq!(decode("naïve".into()), ("naïve".into(), None));
        assert_eq!(decode(b"\xef\xbb\xbfx".to_vec()), ("x".into(), None));
        assert_eq!(decode(b"\xff\xfeh\x00i\x00".to_vec()), ("hi".into(), None));
        let german = "Die Prüfung der Größe übersteigt natürlich die Möglichkeiten der Köche.";
        let (latin, ..) = encoding_rs::WINDOWS_1252.encode(german);
        let (text, lossy) = decode(latin.into_owned());
        assert_eq!(text, german);
        assert!(matches!(lossy, Some(WarningReason::Guessed { .. })));
        let japanese = "吾輩は猫である。名前はまだ無い。";
        let (sjis, ..) = encoding_rs::SHIFT_JIS.encode(japanese);
        assert_eq!(decode(sjis.into_owned()).0, japanese);
    }

    #[test]
    fn broken_utf8_is_told_with_its_place() {
        let mut bytes = "größer und schöner".as_bytes().to_vec();
        bytes.push(0xff);
        let (text, lossy) = decode(bytes);
        assert!(text.ends_with('\u{fffd}'));
        assert_eq!(lossy, Some(WarningReason::BrokenUtf8 { at: 21, places: 1 }));
    }
}
