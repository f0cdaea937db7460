// The only door to virtual memory. A Vm owns one reserved address range, cut into pages; it knows how to move a page
// between its two tiers at an unchanged address. It decides nothing and keeps no page table: that is the arena's.
//
// All functions take page numbers within the range. `pre:` lines are the caller's duty; the arena's page table enforces
// them. Different pages may be moved by different threads at the same time.
//
// Where compute is a stream of a GPU, a prefetch is complete for what enter() ordered after it, and a page is left once
// the work before leave() is done; on the host, moves are complete when they return.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"

namespace pagedopt {

using StreamHandle = void*;

// What the operating system says about the pages, in bytes; nothing where it does not say.
struct Measured {
  std::optional<std::size_t> upper_bytes;  // memory behind pages that are in the upper tier
  std::optional<std::size_t> cache_bytes;  // memory the page cache holds for pages that are in the lower tier
};

// Pages that came to the upper tier.
struct Visits {
  std::uint64_t visited_pages;  // that ever did, whatever became of them
  std::uint64_t arrived_pages;  // each time that one did
};

class Vm {
 public:
  virtual ~Vm() = default;

  virtual std::byte* base() const noexcept = 0;
  virtual std::size_t page_bytes() const noexcept = 0;
  virtual std::size_t page_count() const noexcept = 0;

  // Makes fresh pages [first, last) readable and writable; they read as zeros.
  virtual void commit(PageIndex first, PageIndex last) = 0;

  // Gives a fresh page its memory ahead of the first touch. False: the upper tier has none, and the page is in the
  // lower one now, reading as zeros. pre: committed, no content.
  virtual bool populate(PageIndex page) = 0;

  // Moves of some pages together. `done` counts those that were moved, from the first on, also when it throws. Without
  // an exception it is less than all where a tier has no memory for the next: that and those behind it stay where they
  // are.
  //
  // Lower -> upper. pre: lower; no step uses them meanwhile.
  virtual void prefetch(const std::vector<PageIndex>& pages, std::size_t& done) = 0;
  // Makes ready to demote: waits for work that uses the pages and copies their bytes to the lower tier if that is done
  // ahead; the pages stay where they are. Returns the bytes copied. pre: upper.
  virtual std::size_t write_back(const std::vector<PageIndex>& pages) = 0;
  // Upper -> lower. Returns the bytes copied. pre: upper; no step uses them meanwhile; unchanged since they were
  // written back or, where the lower tier keeps its copy, prefetched. Readers may run at any time.
  virtual std::size_t demote(const std::vector<PageIndex>& pages, std::size_t& done) = 0;
  // How many together are worth it, at most.
  virtual std::size_t most_at_once(MoveKind) const noexcept { return 1; }
  virtual void set_pages_down(std::size_t /*at_once*/) noexcept {}  // where the caller may choose it

  // Whether the lower tier keeps the bytes of a page that was prefetched just now, and a write to the page is seen by
  // whoever it is, so that an unchanged page need not be copied.
  virtual bool keeps_copy(PageIndex page) const noexcept = 0;
  // Whether the lower tier has the bytes of a page of the upper one; for checks, and slow. pre: it kept its copy
  virtual bool has_copy(PageIndex) { return true; }
  // Whether a page that was discarded, or never used, has neither memory nor disk behind it; for checks.
  virtual bool is_empty(PageIndex) { return true; }
  // Whether a step runs, which changes what is prefetched: to see writes to it is then not worth its cost.
  virtual void set_stepping(bool) noexcept {}

  // ---- writes of others than steps, to pages that move or are unchanged (write_watch.h)

  // Begins to watch. `touch` is called when such a page is touched, from any thread, and takes no lock: true if the
  // page stays, false if it is in motion. Nothing is watched where the system does not allow it.
  using Touch = std::function<bool(PageIndex)>;
  virtual void watch(Touch) {}
  // Ends it. pre: no page moves
  virtual void unwatch() noexcept {}
  // Whether no write is lost, whoever writes and when; true where there is nothing to watch.
  virtual bool are_writes_safe() const noexcept { return true; }
  // The page's move is over, and the page table says so: those who touched it meanwhile go on.
  virtual void end_move(PageIndex) noexcept {}
  // The page stays where it is, changed: its eviction was abandoned or failed, or it is about to be written to.
  virtual void keep(PageIndex) noexcept {}

  // Whether there are two tiers. If not, none of the moves may be asked for.
  virtual bool can_move() const noexcept { return true; }

  // Puts a fresh page into the lower tier, reading as zeros, without a transfer; false if it stays: somebody wrote to
  // it, so that it has content, or the lower tier has no memory. pre: committed.
  virtual bool place_lower(PageIndex page) = 0;

  // Gives a fresh page that is to stay in the upper tier its memory, zeroed. pre: committed, no content.
  virtual void settle(PageIndex) {}

  // To be called once by each thread that does nothing but move pages.
  virtual void begin_thread() {}

  // Makes a page of the lower tier ready for use where it is. Throws where the lower tier does not give or take its
  // bytes: on the host, using it would raise SIGBUS then. pre: pinned
  virtual void use_in_place(PageIndex) {}

  // Whether these bytes of a page in the lower tier can be read.
  virtual bool can_read(const std::byte* /*from*/, std::size_t /*bytes*/) const noexcept { return true; }

  // Any -> fresh: forgets the content of the pages in both tiers. pre: nobody uses them, but for what was put on a
  // stream before leave(), or before on the device's default stream. After it threw the pages must not be touched until
  // they were discarded again: there may be no memory behind their addresses.
  virtual void discard(const std::vector<PageIndex>& pages) = 0;

  // Hints to a driver that it had no memory for, so far; each of them costs speed alone.
  virtual std::uint64_t refused_hints() const noexcept { return 0; }

  // Lets go of what the page cache holds of a page. pre: the page is in the upper tier.
  virtual void drop_cache(PageIndex page) noexcept = 0;

  // Where memory may stay with a page that has left the upper tier (see pagedopt/pager/driver_cache.py); else nothing
  // is counted.
  virtual Visits visits() const noexcept { return {}; }

  // Bytes held in the lower tier now.
  virtual std::size_t lower_bytes() const noexcept = 0;

  // pre: tiers as the arena has them, of the first pages
  virtual Measured measure(const std::vector<Tier>& tiers) const = 0;

  // Copies into the page, or clears part of it that nobody uses, as with discard. False: the page was fresh, and is in
  // the lower tier now (see populate). pre: the page is pinned; the bytes are within it.
  virtual bool write(PageIndex, std::byte* to, const std::byte* from, std::size_t bytes) {
    std::memcpy(to, from, bytes);
    return true;
  }
  virtual bool clear(PageIndex, std::byte* from, std::size_t bytes) {
    std::memset(from, 0, bytes);
    return true;
  }

  // ---- work on a stream of a GPU

  // What comes on `stream` from here on finds the page moved as was asked last, and zeroed if it is fresh. False: it
  // was, and is in the lower tier now (see populate). pre: pinned
  virtual bool enter(PageIndex, StreamHandle) { return true; }
  // What was put on `stream` so far uses these pages: they are not demoted, nor discarded, before it is done.
  virtual void leave(const PageIndex* /*pages*/, std::size_t /*count*/, StreamHandle) {}
  // Whether what enters the page now waits for its transfer.
  virtual bool is_arriving(PageIndex) { return false; }
};

enum class DirectIo { automatic, on, off };

// RAM over disk (Linux). Resident pages are private anonymous (huge) pages; lower ones map their place in an unlinked
// spill file in `spill_directory`, made at the first eviction. `reserve_bytes` is address space, not memory; less is
// taken where the process's address-space limit forbids it. `watch`: whether writes are watched; with `on`, watch()
// raises where they cannot be.
enum class WatchWrites { automatic, on, off };
std::unique_ptr<Vm> make_host_vm(std::size_t page_bytes, std::size_t reserve_bytes, std::string spill_directory,
                                 DirectIo, WatchWrites watch = WatchWrites::automatic);

}  // namespace pagedopt
