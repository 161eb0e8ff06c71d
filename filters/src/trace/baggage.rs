//! W3C Baggage: passed on within its limits, and read for the workflow that a call is part of.

/// Bytes of all lines together (W3C Baggage, "Limits").
pub const LONGEST: usize = 8192;
/// Members (W3C Baggage's first edition; a later draft lowers it to 64, which is the least that has to be passed on).
pub const MOST_MEMBERS: usize = 180;
/// The member that names the workflow.
const WORKFLOW: &[u8] = b"workflow.id";

/// Whether lines of baggage go on as they are.
pub fn fits<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut size, mut members) = (0, 0);
    for line in lines {
        size += line.len() + usize::from(size > 0);
        members += 1 + line.iter().filter(|byte| **byte == b',').count();
    }
    size <= LONGEST && members <= MOST_MEMBERS
}

/// As much of the baggage as may go on, whole members from its beginning; and how many members do not.
pub fn cut<'a>(lines: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, usize) {
    let (mut kept, mut members, mut dropped) = (Vec::with_capacity(LONGEST), 0, 0);
    for member in lines.flat_map(members_of) {
        let size = kept.len() + usize::from(!kept.is_empty()) + member.len();
        if members == MOST_MEMBERS || size > LONGEST {
            dropped += 1;
            continue;
        }
        if !kept.is_empty() {
            kept.push(b',');
        }
        kept.extend_from_slice(member);
        members += 1;
    }
    (kept, dropped)
}

fn members_of(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The value of `workflow.id`, as it was before it was percent-encoded, in `room`. `None`: there is none, or it is too long or no
/// text.
pub fn workflow<'a, 'r>(lines: impl Iterator<Item = &'a [u8]>, room: &'r mut [u8]) -> Option<&'r str> {
    for member in lines.flat_map(members_of) {
        let Some(rest) = member.strip_prefix(WORKFLOW) else { continue };
        let Some(value) = rest.trim_ascii_start().strip_prefix(b"=") else { continue };
        // Properties come behind a semicolon.
        let value = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        return decode(value, room).filter(|text| !text.is_empty());
    }
    None
}

fn decode<'r>(value: &[u8], room: &'r mut [u8]) -> Option<&'r str> {
    let (mut from, mut len) = (0, 0);
    while let Some(byte) = value.get(from) {
        let escaped = (*byte == b'%')
            .then(|| {
                let pair: [u8; 1] = super::bytes(value.get(from + 1..from + 3)?, super::any_digit)?;
                Some(pair[0])
            })
            .flatten();
        *room.get_mut(len)? = escaped.unwrap_or(*byte);
        from += if escaped.is_some() { 3 } else { 1 };
        len += 1;
    }
    let text = std::str::from_utf8(&room[..len]).ok()?;
    text.chars().all(|char| !char.is_control()).then_some(text)
}
