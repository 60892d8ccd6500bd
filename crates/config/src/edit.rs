//! Editing of main.cf and master.cf that keeps comments and layout.
