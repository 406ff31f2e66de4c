//! Numbers of variable length: seven bits a byte, the lowest first, the eighth bit set where more follow (LEB128).
//!
//! Each number has one spelling, the shortest.

/// Appends a number.
#[inline]
pub(crate) fn write(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes that a number takes.
pub(crate) fn len(number: u32) -> usize {
    let bits = u32::BITS - (number | 1).leading_zeros();
    // A seventh, rounded up, without a division.
    ((9 * bits + 64) >> 6) as usize
}

/// Reads a number from the front; `None` if it is cut short, too large, or not spelled in the fewest bytes.
#[inline]
pub(crate) fn read(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(u32::from(first));
    }
    let mut number = u64::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return if byte == 0 { None } else { u32::try_from(number).ok() };
        }
    }
    None
}

/// As [`read`], where most numbers take one or two bytes: the number, and where the next one begins.
#[inline(always)]
pub(crate) fn next(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    let low = *bytes.get(at)?;
    if low < 0x80 {
        return Some((u32::from(low), at + 1));
    }
    match bytes.get(at + 1) {
        Some(&high @ 1..0x80) => Some((u32::from(low & 0x7f) | u32::from(high) << 7, at + 2)),
        _ => next_long(bytes, at),
    }
}

#[cold]
fn next_long(bytes: &[u8], mut at: usize) -> Option<(u32, usize)> {
    let number = read(bytes, &mut at)?;
    Some((number, at))
}

/// As [`next`], from the front of what is left, and what is left then.
#[inline(always)]
pub(crate) fn split(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (number, at) = next(rest, 0)?;
    Some((number, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_written() {
        for number in [0, 1, 127, 128, 16383, 16384, 1 << 21, 1 << 28, u32::MAX] {
            let mut bytes = Vec::new();
            write(&mut bytes, number);
            let mut at = 0;
            assert_eq!((read(&bytes, &mut at), at), (Some(number), bytes.len()));
            assert_eq!(read(&bytes[..bytes.len() - 1], &mut 0), None);
            assert_eq!(split(&bytes), Some((number, &[][..])));
            assert_eq!(split(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        assert_eq!(split(&[0x80, 0]), None);
        assert_eq!(read(&[0x80, 0], &mut 0), None);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x10], &mut 0), None);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 1], &mut 0), None);
    }
}
