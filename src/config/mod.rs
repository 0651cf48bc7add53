//! Flags, variables and files to typed settings.
