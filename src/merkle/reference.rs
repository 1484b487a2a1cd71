//! Trees and proofs as the RFCs write them down, to hold this implementation to.

#![allow(clippy::unwrap_used)]

use super::{Hash, Nodes, leaf, node, sha256, split};

/// MTH of RFC 6962, as it is written there.
pub(crate) fn tree(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(usize::try_from(split(leaves.len() as u64)).unwrap());
            node(&tree(left), &tree(right))
        }
    }
}

pub(crate) fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|number| leaf(&number.to_be_bytes())).collect()
}

/// The nodes of every level over these leaves.
pub(crate) fn nodes(leaves: &[Hash]) -> Nodes {
    let (mut nodes, mut level, mut hashes) = (Nodes::new(), 0, leaves.to_vec());
    while !hashes.is_empty() {
        nodes.extend(hashes.iter().zip(0..).map(|(hash, at)| ((level, at), *hash)));
        hashes = hashes.chunks_exact(256).map(tree).collect();
        level += 1;
    }
    nodes
}

/// RFC 9162, section 2.1.3.2, which says how a proof by RFC 6962 is verified.
pub(crate) fn root_by_inclusion(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    let (mut fn_, mut sn, mut root) = (index, size - 1, leaf);
    for hash in path {
        if sn == 0 {
            return None;
        }
        if fn_ & 1 == 1 || fn_ == sn {
            root = node(hash, &root);
            while fn_ & 1 == 0 && fn_ != 0 {
                (fn_, sn) = (fn_ >> 1, sn >> 1);
            }
        } else {
            root = node(&root, hash);
        }
        (fn_, sn) = (fn_ >> 1, sn >> 1);
    }
    (sn == 0).then_some(root)
}

/// RFC 9162, section 2.1.4.2: the roots of both trees.
pub(crate) fn roots_by_consistency(old: u64, new: u64, old_root: Hash, path: &[Hash]) -> Option<(Hash, Hash)> {
    let mut path = path.to_vec();
    if old.is_power_of_two() {
        path.insert(0, old_root);
    }
    let (mut fn_, mut sn) = (old - 1, new - 1);
    while fn_ & 1 == 1 {
        (fn_, sn) = (fn_ >> 1, sn >> 1);
    }
    let (mut before, mut after) = (path[0], path[0]);
    for hash in &path[1..] {
        if sn == 0 {
            return None;
        }
        if fn_ & 1 == 1 || fn_ == sn {
            (before, after) = (node(hash, &before), node(hash, &after));
            while fn_ & 1 == 0 && fn_ != 0 {
                (fn_, sn) = (fn_ >> 1, sn >> 1);
            }
        } else {
            after = node(&after, hash);
        }
        (fn_, sn) = (fn_ >> 1, sn >> 1);
    }
    (sn == 0).then_some((before, after))
}
