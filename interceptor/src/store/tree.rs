//! The Merkle tree of RFC 6962 over the lines, kept as its compact range: the roots of its complete subtrees.

use sha2::{Digest, Sha256};

/// A node's hash.
pub(super) type Node = [u8; 32];

/// A tree that grows at its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tree {
    size: u64,
    /// Largest subtree first; one for each bit that is set in `size`.
    peaks: Vec<Node>,
}

impl Tree {
    /// From what [`Tree::peaks`] gave, where there are as many as `size` demands.
    pub(super) fn from_peaks(size: u64, peaks: &[String]) -> Option<Self> {
        let peaks = peaks.iter().map(|text| decode(text)).collect::<Option<Vec<_>>>()?;
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// How many leaves it has.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its complete subtrees, in hexadecimal.
    pub(super) fn peaks(&self) -> Vec<String> {
        self.peaks.iter().map(hex::encode).collect()
    }

    /// Adds a leaf.
    pub(super) fn push(&mut self, line: &[u8]) {
        let mut node: Node = Sha256::new().chain_update([0]).chain_update(line).finalize().into();
        for _ in 0..self.size.trailing_ones() {
            match self.peaks.pop() {
                Some(left) => node = join(&left, &node),
                None => break,
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root.
    pub(super) fn root(&self) -> Node {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            Some(last) => peaks.fold(*last, |right, left| join(left, &right)),
            None => Sha256::digest([]).into(),
        }
    }
}

fn join(left: &Node, right: &Node) -> Node {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

fn decode(text: &str) -> Option<Node> {
    let mut node = [0; 32];
    hex::decode_to_slice(text, &mut node).ok().map(|()| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 2.1, by its recursive definition.
    fn by_definition(leaves: &[Vec<u8>]) -> Node {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => Sha256::new().chain_update([0]).chain_update(leaf).finalize().into(),
            _ => {
                let half = leaves.len().next_power_of_two() / 2;
                join(&by_definition(&leaves[..half]), &by_definition(&leaves[half..]))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_rfc_6962_at_every_size() {
        let mut tree = Tree::default();
        let mut leaves = Vec::new();
        for n in 0_u32..70 {
            assert_eq!(tree.root(), by_definition(&leaves), "size {n}");
            assert_eq!(Tree::from_peaks(tree.size(), &tree.peaks()), Some(tree.clone()));
            leaves.push(n.to_le_bytes().to_vec());
            tree.push(&n.to_le_bytes());
        }
        assert_eq!(Tree::from_peaks(3, &tree.peaks()), None);
    }
}
