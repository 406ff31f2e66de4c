//! What a text is made of. Most are short, and the next one is of another length: a loop that goes character by character ends
//! where the processor does not foresee it.

/// So many bytes are looked at in one go.
const LANES: usize = 16;

/// The highest bit of each.
const HIGH: u128 = u128::from_ne_bytes([0x80; LANES]);

/// Whether a text is ASCII; `data` are it and what follows it.
#[inline(always)]
pub(super) fn is_ascii(text: &[u8], data: &[u8]) -> bool {
    let look = |all: u128, bytes: &[u8; LANES]| all | u128::from_le_bytes(*bytes);
    match text.last_chunk() {
        Some(last) => look(text.as_chunks().0.iter().fold(0, look), last) & HIGH == 0,
        None => match data.first_chunk() {
            // What follows the text is masked out.
            Some(first) => look(0, first) & HIGH & !(u128::MAX << (8 * text.len())) == 0,
            None => text.is_ascii(),
        },
    }
}

/// Whether CPython interns a constant with this text.
///
/// Source: CPython `Objects/codeobject.c`, `all_name_chars`.
#[inline(always)]
pub(super) fn is_name_like(text: &[u8]) -> bool {
    /// By byte.
    static IS_OF_NAME: [bool; 256] = {
        let mut is_of_name = [false; 256];
        let mut byte = 0;
        while byte < is_of_name.len() {
            is_of_name[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_';
            byte += 1;
        }
        is_of_name
    };
    let is_of_name = |byte: &u8| IS_OF_NAME[usize::from(*byte)];
    match text.split_first_chunk::<8>() {
        // Most texts have something else there.
        Some((first, rest)) => {
            first.iter().fold(true, |all, byte| all & is_of_name(byte)) && rest.iter().all(is_of_name)
        }
        None => text.iter().all(is_of_name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each byte at each place of texts of each length, with anything behind.
    #[test]
    fn texts_are_ascii_if_each_of_their_bytes_is() {
        for len in 0..=3 * LANES + 1 {
            for behind in [0, LANES] {
                let mut data = [vec![b'a'; len], vec![0xff; behind]].concat();
                assert!(is_ascii(&data[..len], &data), "{len} bytes");
                for (at, byte) in (0..len).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
                    data[at] = byte;
                    assert_eq!(is_ascii(&data[..len], &data), byte.is_ascii(), "byte {byte:#x} at {at} of {len}");
                    data[at] = b'a';
                }
            }
        }
    }
}
