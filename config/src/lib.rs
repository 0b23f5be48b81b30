//! Configuration of Portcullis.
