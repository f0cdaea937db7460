#include "ptx_text.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <regex>

namespace ptx {
namespace {

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }
bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

std::string single_spaced(const std::string& text) {
  std::string to;
  for (const char c : text)
    if (!is_space(c))
      to += c;
    else if (!to.empty() && to.back() != ' ')
      to += ' ';
  while (!to.empty() && to.back() == ' ') to.pop_back();
  return to;
}

// Lines stay where they are.
std::string without_comments(const std::string& ptx) {
  std::string to;
  for (std::size_t at = 0; at < ptx.size();) {
    const std::size_t comment = std::min(ptx.find("//", at), ptx.size());
    to.append(ptx, at, comment - at);
    at = std::min(ptx.find('\n', comment), ptx.size());
  }
  return to;
}

std::vector<std::byte> read_bytes(const std::string& braced) {
  std::vector<std::byte> bytes;
  for (const std::string& number : split_list(braced.substr(1, braced.size() - 2)))
    bytes.push_back(static_cast<std::byte>(std::strtol(number.c_str(), nullptr, 0)));
  return bytes;
}

class Reader {
 public:
  explicit Reader(const std::string& ptx) : ptx_(without_comments(ptx)) {}

  Text read() {
    Text text;
    while (skip_space()) {
      if (ptx_[at_] == '.' && is_line_directive()) {
        (void)take_until("\n");
        continue;
      }
      const std::string head = take_until("{;=");
      if (has(head, ".entry ") || has(head, ".func "))
        add_function(head, text);
      else if (has(head, ".global ") || has(head, ".shared "))
        add_array(head, text);
      else
        throw Fault("line " + std::to_string(line()) + " of the PTX: not known: " + head);
    }
    return text;
  }

 private:
  bool is_line_directive() const {
    const auto is = [&](const char* name) { return ptx_.compare(at_, std::string(name).size(), name) == 0; };
    return is(".version") || is(".target") || is(".address_size");
  }
  bool skip_space() {
    while (at_ < ptx_.size() && is_space(ptx_[at_])) ++at_;
    return at_ < ptx_.size();
  }
  // Of the place where it is, which only moves on.
  int line() {
    line_ += static_cast<int>(std::count(ptx_.begin() + line_at_, ptx_.begin() + at_, '\n'));
    line_at_ = at_;
    return line_;
  }

  // Leaves the character that ended it.
  std::string take_until(const char* ends) {
    const std::size_t end = ptx_.find_first_of(ends, at_);
    if (end == std::string::npos) throw Fault("the PTX ends in the middle of: " + ptx_.substr(at_, 80));
    const std::string taken = single_spaced(ptx_.substr(at_, end - at_));
    at_ = end;
    return taken;
  }

  void add_array(const std::string& head, Text& text) {
    Variable array = read_variable(head);
    if (ptx_[at_] == '=') {
      ++at_, skip_space();
      array.content = read_bytes(take_until(";"));
    }
    ++at_;
    array.content.resize(array.bytes);
    (has(head, ".shared ") ? text.shared : text.globals).push_back(array);
  }

  void add_function(const std::string& head, Text& text) {
    static const std::regex form(R"(.*\.(entry|func) (?:\(([^)]*)\) ?)?([\w$]+) ?\(([^)]*)\).*)");
    std::smatch found;
    if (!std::regex_match(head, found, form)) throw Fault("not known: " + head);
    if (ptx_[at_++] == ';') return;  // a declaration
    Function function{found[3], found[1] == "entry", {}, {}, take_body()};
    for (const std::string& one : split_list(found[2])) function.results.push_back(read_variable(one));
    for (const std::string& one : split_list(found[4])) function.parameters.push_back(read_variable(one));
    text.functions.push_back(std::move(function));
  }

  // Inner scopes are taken for part of the outer one: names that several of them have are never in use together.
  std::vector<Statement> take_body() {
    std::vector<Statement> statements;
    for (int depth = 1; depth > 0;) {
      skip_space();
      if (ptx_[at_] == '{' || ptx_[at_] == '}') {
        depth += ptx_[at_++] == '{' ? 1 : -1;
        continue;
      }
      const int line = this->line();
      const std::size_t word_end = std::min(ptx_.find_first_of(": \t\n;", at_), ptx_.size() - 1);
      const bool is_label = ptx_[word_end] == ':' && ptx_[word_end + 1] != ':';
      statements.push_back({line, take_until(is_label ? ":" : ";") + (is_label ? ":" : "")});
      ++at_;
    }
    return statements;
  }

  std::string ptx_;
  std::size_t at_ = 0, line_at_ = 0;
  int line_ = 1;
};

}  // namespace

Text read_text(const std::string& ptx) { return Reader(ptx).read(); }

Variable read_variable(const std::string& declaration) {
  static const std::regex form(
      R"((?:\.\w+ )*?\.(?:param|global|shared)(?: \.align (\d+))? \.[busf](\d+)(?: \.ptr.*)? ([\w$]+)(?:\[(\d+)\])?)");
  std::smatch found;
  if (!std::regex_match(declaration, found, form)) throw Fault("not known: " + declaration);
  const auto number = [&](int i, std::size_t otherwise) {
    return found[i].matched ? static_cast<std::size_t>(std::stoul(found[i])) : otherwise;
  };
  const std::size_t element = number(2, 0) / 8;
  if (found[4].matched && element != 1) throw Fault("an array of other than bytes is not known: " + declaration);
  return {found[3], number(1, element), element * number(4, 1), {}};
}

std::vector<std::string> split_list(const std::string& list) {
  std::vector<std::string> parts;
  int depth = 0;
  std::string part;
  const auto end_part = [&] {
    part = single_spaced(part);
    if (!part.empty()) parts.push_back(part);
    part.clear();
  };
  for (const char c : list) {
    depth += c == '{' || c == '(' || c == '[' ? 1 : c == '}' || c == ')' || c == ']' ? -1 : 0;
    if (c == ',' && depth == 0)
      end_part();
    else
      part += c;
  }
  end_part();
  return parts;
}

}  // namespace ptx
