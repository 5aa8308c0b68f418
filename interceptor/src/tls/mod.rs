//! TLS on both legs: minted certificates towards the agent, verified ones upstream.
