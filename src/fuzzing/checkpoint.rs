use crate::merkle::reference::{leaves, nodes, root_by_inclusion, roots_by_consistency};
use crate::merkle::{self, Frontier, Hash, Nodes};
use crate::note::{self, Checkpoint, SigningKey, Verifier};
use std::ops::Range;
use std::sync::LazyLock;

const SEED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const ORIGIN: &str = "api.example.org/a";

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::new("api.example.org", SEED).unwrap());

/// The one checkpoint that this key is known to have signed: the seeds have its note.
static SIGNED: LazyLock<Checkpoint> =
    LazyLock::new(|| Checkpoint { origin: ORIGIN.to_owned(), size: 42, root: [7; 32] });

/// How many leaves the tree has that proofs are made in.
const LEAVES: u64 = 700;

/// Its nodes, its leaves, and its root after each of them.
static TREE: LazyLock<(Nodes, Vec<Hash>, Vec<Hash>)> = LazyLock::new(|| {
    let (all, mut frontier) = (leaves(LEAVES), Frontier::default());
    let mut roots = vec![frontier.root()];
    for leaf in &all {
        frontier.push(*leaf);
        roots.push(frontier.root());
    }
    (nodes(&all), all, roots)
});

/// A note that is taken has the text that was signed, whatever stands around it; any checkpoint comes back from its note; notes are
/// found one behind the other; and proofs of trees of any size end, and lead to the root.
pub fn checkpoint(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        opens_what_was_signed(text);
        comes_back(text);
        is_split_once(text);
        if let Ok(verifier) = text.parse::<Verifier>() {
            assert_eq!(verifier.to_string(), text.trim(), "a key has one spelling");
        }
    }
    if let Some((first, rest)) = data.split_first_chunk::<8>()
        && let Some(second) = rest.first_chunk::<8>()
    {
        proves(u64::from_le_bytes(*first), u64::from_le_bytes(*second));
    }
}

fn opens_what_was_signed(note: &str) {
    let verifiers = [KEY.verifier("api.example.org/b"), KEY.verifier(ORIGIN)];
    if let Ok(checkpoint) = note::open(note, &verifiers) {
        assert_eq!(checkpoint, *SIGNED, "nobody has signed {note:?}");
        assert!(note.starts_with(&SIGNED.to_string()));
        assert_eq!(note::read_unverified(note), Some(checkpoint));
    }
}

/// Of a text whose first line names a log: its checkpoint, and its note with what follows the line added.
fn comes_back(text: &str) {
    let (log, rest) = text.split_once('\n').unwrap_or((text, ""));
    let origin = KEY.origin(log);
    let verifiers = [KEY.verifier(&origin)];
    let checkpoint = Checkpoint { origin, size: rest.len() as u64, root: merkle::leaf(rest.as_bytes()) };
    let note = KEY.sign(&checkpoint);
    if verifiers[0].to_string().parse::<Verifier>().is_ok() {
        assert_eq!(note::open(&note, &verifiers).as_ref(), Ok(&checkpoint), "{note:?}");
        assert_eq!(note::read_unverified(&note).as_ref(), Some(&checkpoint));
        assert_eq!(note::split(&format!("{note}{note}\n{note}")), [&note[..]; 3]);
    }
    // Signatures of others, or what is none, do not change what it says.
    if let Ok(opened) = note::open(&format!("{note}{rest}"), &verifiers) {
        assert_eq!(opened, checkpoint, "{rest:?} behind the note");
    }
    if let Ok(opened) = note::open(&format!("{rest}{note}"), &verifiers) {
        assert_eq!(opened, checkpoint, "{rest:?} before the note");
    }
}

fn is_split_once(text: &str) {
    let notes = note::split(text);
    assert!(notes.iter().all(|note| note.ends_with('\n') && !note.starts_with('\n')));
    // A line that ends as on Windows is read without its carriage return, and no note that is signed has another one.
    if !text.contains('\r') {
        assert_eq!(note::split(&notes.concat()).concat(), notes.concat(), "{text:?}");
    }
}

/// The ranges cover these leaves, each once.
fn cover(ranges: &[Range<u64>], mut leaves: Vec<Range<u64>>) -> bool {
    let mut ranges = ranges.to_vec();
    ranges.sort_by_key(|range| range.start);
    leaves.retain(|range| !range.is_empty());
    let join = |ranges: Vec<Range<u64>>| {
        ranges.into_iter().fold(Vec::<Range<u64>>::new(), |mut joined, range| {
            match joined.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => joined.push(range),
            }
            joined
        })
    };
    join(ranges) == join(leaves)
}

fn proves(one: u64, other: u64) {
    // Of any size.
    let (index, size) = (one.min(other), one.max(other));
    if index < size {
        let path = merkle::inclusion(index, size);
        assert!(path.len() <= 64 && cover(&path, vec![0..index, index + 1..size]), "{index} in {size}");
        let rows = merkle::rows(&path);
        assert!(rows.values().flatten().all(|nodes| nodes.start < nodes.end), "{rows:?}");
        let nodes: u64 = rows.values().flatten().map(|nodes| nodes.end - nodes.start).sum();
        assert!(nodes <= 8 * 256 * 2, "{index} in {size} needs {nodes} nodes");
    }
    if index > 0 {
        let path = merkle::consistency(index, size);
        // Whoever has the old root has all of a tree that is whole.
        let from = if index == size || index.is_power_of_two() { index } else { 0 };
        assert!(path.len() <= 65 && cover(&path, vec![from..size; 1]), "{index} to {size}");
        assert!(merkle::rows(&path).values().flatten().all(|nodes| nodes.start < nodes.end));
    }
    // Of one that is there.
    let (nodes, leaves, roots) = &*TREE;
    let (index, size) = (one % LEAVES, one % LEAVES + 1 + other % (LEAVES - one % LEAVES));
    let hashes =
        |path: Vec<Range<u64>>| -> Vec<Hash> { path.iter().map(|range| merkle::over(nodes, range).unwrap()).collect() };
    let at = |number: u64| usize::try_from(number).unwrap();
    let root = roots[at(size)];
    let path = hashes(merkle::inclusion(index, size));
    assert_eq!(root_by_inclusion(leaves[at(index)], index, size, &path), Some(root), "{index} in {size}");
    let neighbour = (index + 1) % size;
    let proven = root_by_inclusion(leaves[at(neighbour)], index, size, &path) == Some(root);
    assert!(!proven || neighbour == index, "another leaf is not there");
    if index > 0 && index < size {
        let old = roots[at(index)];
        let path = hashes(merkle::consistency(index, size));
        assert_eq!(roots_by_consistency(index, size, old, &path), Some((old, root)), "{index} to {size}");
    }
}
