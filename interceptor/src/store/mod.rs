//! Evidence: the journal, the chained segments, checkpoints, and the index that can be rebuilt.
