// The only door to virtual memory. A Vm owns one reserved address range, cut into pages; it knows how to move a page
// between its two tiers at an unchanged address. It decides nothing and keeps no page table: that is the arena's.
//
// All functions take page numbers within the range. `pre:` lines are the caller's duty; the arena's page table enforces
// them. Different pages may be moved by different threads at the same time.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "units.h"

namespace pagedopt {

// What the operating system says about a run of pages, in bytes.
struct Measured {
  std::size_t upper_bytes = 0;  // memory behind pages that are in the upper tier
  std::size_t cache_bytes = 0;  // memory the page cache holds for pages that are in the lower tier
};

class Vm {
 public:
  virtual ~Vm() = default;

  virtual std::byte* base() const noexcept = 0;
  virtual std::size_t page_bytes() const noexcept = 0;
  virtual std::size_t page_count() const noexcept = 0;

  // Makes fresh pages [first, last) readable and writable; they read as zeros.
  virtual void commit(PageIndex first, PageIndex last) = 0;

  // Gives a fresh page its memory ahead of the first touch. pre: committed, no content.
  virtual void populate(PageIndex page) = 0;

  // Lower -> upper: at return the page's bytes are in the upper tier. pre: lower; nobody writes to it meanwhile.
  virtual void prefetch(PageIndex page) = 0;

  // Copies the page's bytes to the lower tier; the page stays where it is. pre: upper.
  virtual void write_back(PageIndex page) = 0;

  // Upper -> lower. pre: upper and unchanged since it was written back or prefetched; nobody writes to it meanwhile.
  // Readers may run at any time.
  virtual void demote(PageIndex page) = 0;

  // Puts a fresh page into the lower tier, reading as zeros, without a transfer. pre: committed, no content.
  virtual void place_lower(PageIndex page) = 0;

  // Any -> fresh: forgets the content of the page in both tiers. pre: nobody uses it.
  virtual void discard(PageIndex page) = 0;

  // Lets go of what the page cache holds of a page. pre: the page is in the upper tier.
  virtual void drop_cache(PageIndex page) noexcept = 0;

  // Bytes held in the lower tier now.
  virtual std::size_t lower_bytes() const noexcept = 0;

  // pre: tiers.size() == page_count(); tiers as the arena has them.
  virtual Measured measure(const std::vector<Tier>& tiers) const = 0;
};

enum class DirectIo { automatic, on, off };

// RAM over disk (Linux). Resident pages are private anonymous (huge) pages; lower ones map their place in an unlinked
// spill file in `spill_directory`, made at the first eviction. `reserve_bytes` is address space, not memory; less is
// taken where the process's address-space limit forbids it.
std::unique_ptr<Vm> make_host_vm(std::size_t page_bytes, std::size_t reserve_bytes, std::string spill_directory,
                                 DirectIo);

}  // namespace pagedopt
