//! Which process and which agent: from kernel events to `ProcessFacts`, from a launch to an agent.
