//! Where a replica is: on a node, or on one disk of a node. Pure; the one place that knows how both are written.
//!
//! `NODE` is wherever on that node the volume's directory is; `NODE/DISK` is that disk and no other. A volume has at most
//! one replica of the first kind on a node, and they are told apart on the disk, too ([`crate::format::PINNED`]). On its
//! node a replica goes by `VOLUME` or `VOLUME/DISK`.

/// What stands between a node, or a volume, and a disk. None of their names has it.
const SEPARATOR: char = '/';

/// The place on a disk of a node.
pub fn on_disk(node: &str, disk: &str) -> String {
    format!("{node}{SEPARATOR}{disk}")
}

/// The node of a place.
pub fn node_of(place: &str) -> &str {
    split(place).0
}

/// The disk that a place names, if it names one.
pub fn disk_of(place: &str) -> Option<&str> {
    split(place).1
}

/// What the replica of a volume at this place goes by on its node.
pub fn name(volume: &str, place: &str) -> String {
    match disk_of(place) {
        Some(disk) => format!("{volume}{SEPARATOR}{disk}"),
        None => volume.into(),
    }
}

/// The volume, and the disk if it is bound to one, of a replica that goes by this on its node.
pub fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once(SEPARATOR).map_or((name, None), |(first, disk)| (first, Some(disk)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_a_disk_is_written_as_it_always_was() {
        assert_eq!((node_of("n"), disk_of("n"), name("v", "n")), ("n", None, "v".to_owned()));
        let place = on_disk("n", "d");
        assert_eq!((node_of(&place), disk_of(&place)), ("n", Some("d")));
        assert_eq!(split(&name("v", &place)), ("v", Some("d")));
    }
}
