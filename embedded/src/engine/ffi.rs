//! The C calls of `libchdb.so`, by name and type, and nothing else.
//!
//! The signatures are those of `chdb.h` 26.7. The library is loaded once and never unloaded: it
//! starts threads of its own, and unmapping code under a running thread is undefined behaviour.

use std::ffi::{OsStr, c_char, c_int, c_void};

use libloading::Library;

/// `chdb_connection *`: what `chdb_connect` returns and `chdb_close_conn` takes.
pub(super) type ConnectionSlot = *mut *mut c_void;
/// `chdb_connection`: what every other call takes.
pub(super) type ConnectionPtr = *mut c_void;
pub(super) type ResultPtr = *mut c_void;
pub(super) type InsertPtr = *mut c_void;

type Text = *const c_char;
/// `(connection, sql, sql_len, format, format_len, names, name_lens, values, value_lens, count)`.
type WithParams = unsafe extern "C" fn(
    ConnectionPtr,
    Text,
    usize,
    Text,
    usize,
    *const Text,
    *const usize,
    *const Text,
    *const usize,
    usize,
) -> *mut c_void;

macro_rules! functions {
    ($($field:ident: $type:ty = $name:literal;)*) => {
        /// Addresses of the functions, valid for the life of the process.
        #[derive(Clone, Copy)]
        pub(super) struct Functions { $(pub(super) $field: $type,)* }

        impl Functions {
            /// Loads the library and looks every function up.
            ///
            /// # Errors
            ///
            /// The loader's message when the file cannot be loaded or lacks a function.
            pub(super) fn load(path: &OsStr) -> Result<Self, libloading::Error> {
                // SAFETY: loading runs the library's initialisers. The file is the one that the
                // operator named or that scripts/setup fetched and checked; it has no contract
                // beyond being chdb's own build.
                let library = unsafe { Library::new(path)? };
                let functions = Self {
                    $(
                        // SAFETY: the type is the one that chdb.h declares for this name.
                        $field: unsafe { *library.get::<$type>($name)? },
                    )*
                };
                // Never unloaded, see the module's head.
                std::mem::forget(library);
                Ok(functions)
            }
        }
    };
}

functions! {
    set_signal_handlers_enabled: unsafe extern "C" fn(c_int) = b"chdb_set_signal_handlers_enabled\0";
    version: unsafe extern "C" fn() -> Text = b"chdb_version\0";
    shutdown: unsafe extern "C" fn() -> c_int = b"chdb_shutdown\0";
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> ConnectionSlot = b"chdb_connect\0";
    close: unsafe extern "C" fn(ConnectionSlot) = b"chdb_close_conn\0";
    query: WithParams = b"chdb_query_with_params_n\0";
    stream_query: WithParams = b"chdb_stream_query_with_params_n\0";
    stream_fetch: unsafe extern "C" fn(ConnectionPtr, ResultPtr) -> ResultPtr
        = b"chdb_stream_fetch_result\0";
    stream_cancel: unsafe extern "C" fn(ConnectionPtr, ResultPtr) = b"chdb_stream_cancel_query\0";
    result_buffer: unsafe extern "C" fn(ResultPtr) -> Text = b"chdb_result_buffer\0";
    result_length: unsafe extern "C" fn(ResultPtr) -> usize = b"chdb_result_length\0";
    result_error: unsafe extern "C" fn(ResultPtr) -> Text = b"chdb_result_error\0";
    result_rows_read: unsafe extern "C" fn(ResultPtr) -> u64 = b"chdb_result_rows_read\0";
    result_rows_written: unsafe extern "C" fn(ResultPtr) -> u64 = b"chdb_result_rows_written\0";
    result_bytes_written: unsafe extern "C" fn(ResultPtr) -> u64 = b"chdb_result_bytes_written\0";
    result_storage_rows_read: unsafe extern "C" fn(ResultPtr) -> u64
        = b"chdb_result_storage_rows_read\0";
    result_storage_bytes_read: unsafe extern "C" fn(ResultPtr) -> u64
        = b"chdb_result_storage_bytes_read\0";
    result_destroy: unsafe extern "C" fn(ResultPtr) = b"chdb_destroy_query_result\0";
    insert_open: WithParams = b"chdb_stream_insert_with_params_n\0";
    insert_append: unsafe extern "C" fn(InsertPtr, *const c_void, usize) -> c_int
        = b"chdb_stream_append\0";
    insert_done: unsafe extern "C" fn(InsertPtr) -> ResultPtr = b"chdb_stream_done\0";
    insert_error: unsafe extern "C" fn(InsertPtr) -> Text = b"chdb_stream_insert_error\0";
    insert_cancel: unsafe extern "C" fn(InsertPtr) = b"chdb_stream_cancel_insert\0";
    insert_destroy: unsafe extern "C" fn(InsertPtr) = b"chdb_destroy_insert_stream\0";
}
