//! `interceptor run`: from a command line to a captured process tree, or to nothing at all.
