//! The SQL front end: text to plan.
