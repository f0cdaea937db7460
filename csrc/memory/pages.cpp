#include "memory/pages.h"

namespace pagedopt {

Tier PageTable::tier(PageIndex page) const noexcept {
  switch (state(page)) {
    case PageState::fresh: return Tier::fresh;
    case PageState::evicted: return Tier::lower;
    default: return Tier::upper;
  }
}

bool PageTable::is_leaving(PageIndex page) const noexcept {
  const PageState now = state(page);
  return now == PageState::evicting || now == PageState::remapping;
}

// A page that is being written back can be pinned, for it is still mapped: the dirty bit set here makes begin_remap
// give the eviction up. A page that is replaced cannot (`default`). A page in the lower tier can be pinned unless a
// prefetch of it is pending; begin_prefetch sees the pin and does nothing. Pins of both tiers end by unpin(), so a
// pinned page is moved by nobody.
PageTable::Pin PageTable::pin(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    switch (state_of(word)) {
      case PageState::resident:
      case PageState::evicting:
        if (swap(page, word, (word + kOnePin) | kDirty)) return word & kDirty ? Pin::pinned : Pin::first;
        break;
      case PageState::fresh:
        if (word & kWanted) return Pin::wait;
        if (swap(page, word, with(word + kOnePin, PageState::resident) | kDirty)) {
          ++upper_;
          return Pin::pinned;
        }
        break;
      case PageState::evicted:
        if (word & kWanted) return Pin::wait;
        if (swap(page, word, (word + kOnePin) | kCached)) return Pin::direct;
        break;
      default: return Pin::wait;
    }
  }
}

// Called by the thread that answers writes, before it lets the writer go on: the dirty bit is set before the write
// happens, so an eviction that began earlier is given up and its old copy is never used.
bool PageTable::touch(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    switch (state_of(word)) {
      case PageState::fresh: return true;
      case PageState::resident:
      case PageState::evicting:
        if (swap(page, word, word | kDirty)) return true;
        break;
      default: return false;
    }
  }
}

// A page that a step pinned meanwhile is no longer fresh, and stays as the step made it.
void PageTable::take_fresh(PageIndex page) noexcept {
  Word word = load(page);
  while (state_of(word) == PageState::fresh && (word & kLive)) {
    if (!swap(page, word, with(word, PageState::resident) | kDirty)) continue;
    ++upper_;
    return;
  }
}

// A flag of its own in the word: no transition loses it, and those that end a prefetch clear it.
void PageTable::set_wanted(PageIndex page, bool wanted) noexcept {
  if (wanted)
    words_[page].fetch_or(kWanted);
  else
    words_[page].fetch_and(~kWanted);
}

// Nobody else has the page yet, so the two steps need not be one.
void PageTable::set_live(PageIndex page, bool keep) noexcept {
  PAGEDOPT_PRE(!live(page));
  const Word before = words_[page].fetch_or(keep ? kLive | kKeep : kLive);
  if (keep && state_of(before) == PageState::fresh) {
    transition(page, PageState::resident, kDirty);
    ++upper_;
  }
}

// Of a page whose mover the caller is. Pins and flags may change meanwhile and are kept, hence the loop.
void PageTable::transition(PageIndex page, PageState state, Word set, Word clear) noexcept {
  Word word = load(page);
  while (!swap(page, word, (with(word, state) | set) & ~clear)) {
  }
}

// Only of a page without pins: those who pinned it in the lower tier use it there. From here on pin() waits.
PageTable::Source PageTable::begin_prefetch(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    const bool possible = word < kOnePin && (word & kLive);
    const PageState state = state_of(word);
    if (!possible || (state != PageState::fresh && state != PageState::evicted)) return Source::none;
    if (!swap(page, word, with(word, PageState::prefetching))) continue;
    ++upper_;
    if (state == PageState::fresh) return Source::zeros;
    --lower_;
    return Source::lower;
  }
}

// The bytes are there before the word says so (release in swap), so a worker that pins the page reads them.
void PageTable::finish_prefetch(PageIndex page, Source source, bool lower_keeps_copy) noexcept {
  PAGEDOPT_PRE(state(page) == PageState::prefetching);
  const bool dirty = source == Source::zeros || !lower_keeps_copy;
  transition(page, PageState::resident, dirty ? kDirty : 0, dirty ? kWanted : kWanted | kDirty);
}

// The page is as before begin_prefetch, but no longer wanted: a worker that waited uses it where it is.
void PageTable::cancel_prefetch(PageIndex page, Source source) noexcept {
  PAGEDOPT_PRE(state(page) == PageState::prefetching);
  transition(page, source == Source::zeros ? PageState::fresh : PageState::evicted, 0, kWanted);
  --upper_;
  if (source == Source::lower) ++lower_;
}

// Its zeros are in the lower tier already. Nobody moves it meanwhile: it is pinned, or prefetching.
void PageTable::begin_lower(PageIndex page) noexcept {
  PAGEDOPT_PRE(state(page) == PageState::prefetching || (state(page) == PageState::resident && is_pinned(page)));
  transition(page, PageState::evicted, 0, kWanted | kDirty);
  --upper_;
  ++lower_;
}

// The dirty bit is cleared by the step that begins the eviction: whoever changes the page from here on sets it again,
// and begin_remap sees that. An unchanged page need not be written, so it goes straight to remapping, which no pin
// enters.
PageTable::Content PageTable::begin_evict(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    if (word >= kOnePin || (word & kKeep) || !(word & kLive)) return Content::busy;
    const PageState state = state_of(word);
    if (state == PageState::fresh) {
      if (!swap(page, word, with(word, PageState::remapping))) continue;
      ++upper_;
      return Content::zeros;
    }
    if (state != PageState::resident) return Content::busy;
    const bool dirty = word & kDirty;
    const PageState next = dirty ? PageState::evicting : PageState::remapping;
    if (swap(page, word, with(word, next) & ~kDirty)) return dirty ? Content::dirty : Content::clean;
  }
}

// One step decides between "used meanwhile" and "nobody can use it any more": a pin or a write comes either before, and
// is seen here, or after, and waits.
bool PageTable::begin_remap(PageIndex page) noexcept {
  PAGEDOPT_PRE(state(page) == PageState::evicting);
  Word word = load(page);
  for (;;) {
    const bool used = word >= kOnePin || (word & kDirty);
    const Word next = used ? with(word, PageState::resident) | kDirty : with(word, PageState::remapping);
    if (swap(page, word, next)) return !used;
  }
}

// The lower tier is mapped before the word says so.
void PageTable::finish_evict(PageIndex page) noexcept {
  PAGEDOPT_PRE(state(page) == PageState::remapping && !is_pinned(page));
  transition(page, PageState::evicted);
  --upper_;
  ++lower_;
}

// Dirty, whatever it was: what the lower tier has may be half written.
void PageTable::cancel_evict(PageIndex page, Content content) noexcept {
  PAGEDOPT_PRE(is_leaving(page));
  if (content == Content::zeros) {
    transition(page, PageState::fresh);
    --upper_;
  } else {
    transition(page, PageState::resident, kDirty);
  }
}

// Pins and flags go with the content: no extent uses the page, so nobody holds a pin, and none can be taken in
// remapping.
bool PageTable::begin_discard(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    const PageState state = state_of(word);
    if (state == PageState::prefetching || state == PageState::evicting || state == PageState::remapping) return false;
    if (!swap(page, word, static_cast<Word>(PageState::remapping))) continue;
    if (state == PageState::evicted) --lower_;
    if (state != PageState::resident) ++upper_;
    return true;
  }
}

void PageTable::finish_discard(PageIndex page) noexcept {
  PAGEDOPT_PRE(state(page) == PageState::remapping);
  words_[page].store(static_cast<Word>(PageState::fresh), std::memory_order_release);
  --upper_;
}

const char* PageTable::fault(PageIndex page) const noexcept {
  const Word word = load(page);
  const PageState state = state_of(word);
  const bool is_at_rest = state == PageState::fresh || state == PageState::resident || state == PageState::evicted;
  if (!is_at_rest) return "in motion, though nothing moves";
  if (!(word & kLive) && (word & ~kWanted) != 0) return "not live, and not fresh without pins and flags";
  if ((word & kKeep) && state != PageState::resident) return "kept, and not in the upper tier";
  if (state == PageState::evicted && (word & kDirty)) return "in the lower tier, and dirty";
  if (state == PageState::fresh && word >= kOnePin) return "pinned, and fresh";
  return nullptr;
}

const char* PageTable::fault_of_sums(PageIndex end) const noexcept {
  std::int64_t upper = 0, lower = 0;
  for (PageIndex page = 0; page < end; ++page) {
    upper += tier(page) == Tier::upper ? 1 : 0;
    lower += tier(page) == Tier::lower ? 1 : 0;
  }
  if (upper != upper_) return "upper() is not the number of pages in the upper tier";
  if (lower != lower_) return "lower() is not the number of pages in the lower tier";
  return nullptr;
}

}  // namespace pagedopt
