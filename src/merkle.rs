//! Merkle trees by RFC 6962, section 2.1: their roots, and the proofs that an entry is in one and that one continues another.
//!
//! A tree over some hundred thousand leaves is not in memory: what a proof or a root needs is first named, as [`Rows`], then
//! fetched, and then joined. Nodes are kept at every eighth height only: level 0 is the leaves, and a node of level 1 the root of 256
//! of them, as in tiles of height 8 (c2sp.org/tlog-tiles).

#[cfg(any(test, fuzzing))]
pub(crate) mod reference;

use aws_lc_rs::digest::{Context, SHA256};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// How many heights of the tree lie between two levels of nodes.
const LEVEL_HEIGHT: u32 = 8;

/// How many nodes of a level one of the next is made of.
pub(crate) const WIDTH: u64 = 1 << LEVEL_HEIGHT;

/// SHA-256.
pub type Hash = [u8; 32];

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The hash of a leaf with this data.
#[must_use]
pub fn leaf(data: &[u8]) -> Hash {
    sha256(&[&[0], data])
}

/// The hash of what is above these two.
#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// The root of the subtree over whole subtrees from left to right, each larger than those to its right together.
fn join(parts: impl DoubleEndedIterator<Item = Hash>) -> Hash {
    parts.rev().reduce(|right, left| node(&left, &right)).unwrap_or_else(|| sha256(&[]))
}

/// The root of a tree whose leaves come one after the other.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    /// Whole subtrees from left to right, with their heights.
    parts: Vec<(u32, Hash)>,
    size: u64,
}

impl Frontier {
    /// Adds the hash of the next leaf.
    pub fn push(&mut self, leaf: Hash) {
        let (mut height, mut hash) = (0, leaf);
        while let Some((_, left)) = self.parts.pop_if(|(other, _)| *other == height) {
            (height, hash) = (height + 1, node(&left, &hash));
        }
        self.parts.push((height, hash));
        self.size += 1;
    }

    /// Adds the root of the next 256 leaves, behind whole groups of as many.
    pub fn push_group(&mut self, root: Hash) {
        let (mut height, mut hash) = (WIDTH.ilog2(), root);
        while let Some((_, left)) = self.parts.pop_if(|(other, _)| *other == height) {
            (height, hash) = (height + 1, node(&left, &hash));
        }
        self.parts.push((height, hash));
        self.size += WIDTH;
    }

    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over them.
    #[must_use]
    pub fn root(&self) -> Hash {
        join(self.parts.iter().map(|(_, hash)| *hash))
    }
}

/// The largest power of two that is smaller than this, which is 2 or more.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The leaves under each hash of the proof that the leaf `index` is in the tree of this size, from the bottom up (PATH).
#[must_use]
pub fn inclusion(index: u64, size: u64) -> Vec<Range<u64>> {
    let (mut start, mut end, mut path) = (0, size, Vec::new());
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(middle..end);
            end = middle;
        } else {
            path.push(start..middle);
            start = middle;
        }
    }
    path.reverse();
    path
}

/// The leaves under each hash of the proof that the tree of size `new` continues the one of size `old`, 1 to `new` (PROOF).
#[must_use]
pub fn consistency(old: u64, new: u64) -> Vec<Range<u64>> {
    let (mut start, mut end, mut path, mut whole) = (0, new, Vec::new(), true);
    while old != end {
        let middle = start + split(end - start);
        if old <= middle {
            path.push(middle..end);
            end = middle;
        } else {
            path.push(start..middle);
            start = middle;
            whole = false;
        }
    }
    if !whole {
        path.push(start..end);
    }
    path.reverse();
    path
}

/// The whole subtrees that make up a range of leaves which a tree has as a subtree: height, and position among those of that height.
fn subtrees(range: &Range<u64>) -> impl DoubleEndedIterator<Item = (u32, u64)> + use<> {
    let (mut start, length) = (range.start, range.end - range.start);
    let mut found = Vec::new();
    for height in (0..u64::BITS).rev().filter(|height| length >> height & 1 == 1) {
        found.push((height, start >> height));
        start += 1 << height;
    }
    found.into_iter()
}

/// The level at whose nodes a subtree of this height is looked up, and those nodes.
fn below(height: u32, position: u64) -> (u32, Range<u64>) {
    let spread = height % LEVEL_HEIGHT;
    (height / LEVEL_HEIGHT, position << spread..(position + 1) << spread)
}

/// Which nodes of which level are needed.
pub type Rows = BTreeMap<u32, Vec<Range<u64>>>;

/// The nodes that the hashes over these ranges are made of.
#[must_use]
pub fn rows<'r>(ranges: impl IntoIterator<Item = &'r Range<u64>>) -> Rows {
    let mut rows = Rows::new();
    for (height, position) in ranges.into_iter().flat_map(subtrees) {
        let (level, nodes) = below(height, position);
        rows.entry(level).or_default().push(nodes);
    }
    for level in rows.values_mut() {
        level.sort_by_key(|nodes| nodes.start);
        // Neighbours are one range.
        level.dedup_by(|next, before| {
            let joined = next.start <= before.end;
            if joined {
                before.end = before.end.max(next.end);
            }
            joined
        });
    }
    rows
}

/// Nodes by level and position.
pub type Nodes = HashMap<(u32, u64), Hash>;

/// The hash over a range of leaves; `None` where a node is missing.
#[must_use]
pub fn over(nodes: &Nodes, range: &Range<u64>) -> Option<Hash> {
    let subtree = |(height, position)| {
        let (level, below) = below(height, position);
        let hashes: Option<Vec<Hash>> = below.map(|at| nodes.get(&(level, at)).copied()).collect();
        Some(whole(&hashes?))
    };
    let parts: Option<Vec<Hash>> = subtrees(range).map(subtree).collect();
    parts.map(|parts| join(parts.into_iter()))
}

/// The root over a power of two of hashes.
#[must_use]
pub(crate) fn whole(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for hash in hashes {
        frontier.push(*hash);
    }
    frontier.root()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::reference::{leaves, nodes, root_by_inclusion, roots_by_consistency, tree};
    use super::*;

    #[test]
    fn roots_are_those_of_the_reference_data() {
        // The leaves and roots with which implementations of Certificate Transparency test themselves
        // (github.com/google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc).
        let data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::default();
        assert_eq!(hex::encode(frontier.root()), roots[0]);
        for (data, root) in data.iter().zip(&roots[1..]) {
            frontier.push(leaf(&hex::decode(data).unwrap()));
            assert_eq!(hex::encode(frontier.root()), *root);
        }
    }

    #[test]
    fn proofs_are_those_of_the_rfc() {
        // The example of section 2.1.3, a tree of seven leaves d0 to d6.
        assert_eq!(inclusion(0, 7), [1..2, 2..4, 4..7]);
        assert_eq!(inclusion(3, 7), [2..3, 0..2, 4..7]);
        assert_eq!(inclusion(4, 7), [5..6, 6..7, 0..4]);
        assert_eq!(inclusion(6, 7), [4..6, 0..4]);
        assert_eq!(consistency(3, 7), [2..3, 3..4, 0..2, 4..7]);
        assert_eq!(consistency(4, 7), vec![4..7_u64; 1]);
        assert_eq!(consistency(6, 7), [4..6, 6..7, 0..4]);
        assert!(consistency(7, 7).is_empty() && inclusion(0, 1).is_empty());
    }

    #[test]
    fn every_proof_of_small_trees_leads_to_the_roots() {
        let all = leaves(70);
        let nodes = nodes(&all);
        for size in 1..=70 {
            let root = tree(&all[..usize::try_from(size).unwrap()]);
            assert_eq!(over(&nodes, &(0..size)), Some(root));
            for other in 0..size {
                let path: Vec<Hash> = inclusion(other, size).iter().map(|range| over(&nodes, range).unwrap()).collect();
                let leaf = all[usize::try_from(other).unwrap()];
                assert_eq!(root_by_inclusion(leaf, other, size, &path), Some(root), "{other} in {size}");
            }
            for old in 1..size {
                let path: Vec<Hash> = consistency(old, size).iter().map(|range| over(&nodes, range).unwrap()).collect();
                let old_root = tree(&all[..usize::try_from(old).unwrap()]);
                assert_eq!(roots_by_consistency(old, size, old_root, &path), Some((old_root, root)), "{old} to {size}");
            }
        }
    }

    #[test]
    fn a_proof_of_a_large_tree_needs_few_nodes() {
        let size = 66_001;
        let all = leaves(size);
        let (nodes, root) = (nodes(&all), tree(&all));
        for index in [0, 255, 256, 65_535, 65_536, 65_999, 66_000] {
            let ranges = inclusion(index, size);
            let rows = rows(&ranges);
            let needed: Nodes = rows
                .iter()
                .flat_map(|(level, ranges)| ranges.iter().cloned().flatten().map(|at| (*level, at)))
                .map(|key| (key, nodes[&key]))
                .collect();
            assert!(needed.len() <= 1024 && rows.values().all(|ranges| ranges.len() <= 4), "{rows:?}");
            let path: Vec<Hash> = ranges.iter().map(|range| over(&needed, range).unwrap()).collect();
            let leaf = all[usize::try_from(index).unwrap()];
            assert_eq!(root_by_inclusion(leaf, index, size, &path), Some(root), "{index}");
        }
        assert_eq!(over(&Nodes::new(), &(0..size)), None);
    }
}
