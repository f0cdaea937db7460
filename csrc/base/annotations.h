// Which lock guards what, said so that clang checks it (-Wthread-safety; tests/native/test_locks.py). Other compilers
// see nothing. `&Sync::mutex` stands for that lock of whichever Sync the caller holds.
#pragma once

#if defined(__clang__)
#define PAGEDOPT_LOCKS(attribute) __attribute__((attribute))
#else
#define PAGEDOPT_LOCKS(attribute)
#endif

#define PAGEDOPT_LOCK_TYPE PAGEDOPT_LOCKS(capability("mutex"))
#define PAGEDOPT_SCOPED_LOCK_TYPE PAGEDOPT_LOCKS(scoped_lockable)
#define PAGEDOPT_ACQUIRES(...) PAGEDOPT_LOCKS(acquire_capability(__VA_ARGS__))
#define PAGEDOPT_RELEASES(...) PAGEDOPT_LOCKS(release_capability(__VA_ARGS__))
#define PAGEDOPT_GUARDED_BY(lock) PAGEDOPT_LOCKS(guarded_by(lock))  // data: read and written with the lock held
#define PAGEDOPT_WANTS(...) PAGEDOPT_LOCKS(requires_capability(__VA_ARGS__))  // functions: the caller holds it
#define PAGEDOPT_WANTS_FREE(...) PAGEDOPT_LOCKS(locks_excluded(__VA_ARGS__))  // the caller does not: it is taken here
#define PAGEDOPT_UNCHECKED_LOCKS PAGEDOPT_LOCKS(no_thread_safety_analysis)    // a comment says why
