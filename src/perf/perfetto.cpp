#include "ttt/perf/perfetto.h"

#include <bit>
#include <cstdint>
#include <vector>

namespace ttt::inline v2::perf {

namespace {

// The wire format of protocol buffers, as far as a trace needs it.
class Message {
 public:
  Message& integer(int field, std::uint64_t value) {
    key(field, 0);
    varint(value);
    return *this;
  }
  Message& text(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(int field, const Message& inner) { return text(field, inner.bytes_); }
  Message& real(int field, double value) {
    key(field, 1);
    const auto bits = std::bit_cast<std::uint64_t>(value);
    for (int i = 0; i < 8; ++i) bytes_ += static_cast<char>(bits >> (8 * i));
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(int field, unsigned type) { varint(static_cast<std::uint64_t>(field) << 3 | type); }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

// Field numbers of protos/perfetto/trace in Perfetto's sources.
namespace trace {
constexpr int packet = 1;
}
namespace packet {
constexpr int timestamp = 8, sequence = 10, track_event = 11, track_descriptor = 60;
}
namespace descriptor {
constexpr int uuid = 1, name = 2, process = 3, thread = 4, parent = 5, counter = 8;
constexpr int process_pid = 1, process_name = 6, thread_pid = 1, thread_tid = 2, thread_name = 5;
}  // namespace descriptor
namespace event {
constexpr int annotation = 4, type = 9, track = 11, category = 22, name = 23, double_value = 44;
constexpr int annotation_name = 10, annotation_uint = 3;
enum Type : std::uint64_t { begin = 1, end = 2, counter = 4 };
}  // namespace event

constexpr std::uint64_t process_track = 1, thread_track = 2, first_counter_track = 3, process_id = 1;

class Writer {
 public:
  void describe(const Message& track) { add(Message().message(packet::track_descriptor, track)); }
  void add_event(std::int64_t time, const Message& what) {
    add(Message()
            .integer(packet::timestamp, static_cast<std::uint64_t>(time))
            .message(packet::track_event, what));
  }
  const std::string& bytes() const { return trace_.bytes(); }

 private:
  void add(Message packet) { trace_.message(trace::packet, packet.integer(packet::sequence, 1)); }
  Message trace_;
};

std::string_view category(ZoneKind kind) {
  switch (kind) {
    case ZoneKind::step:
      return "step";
    case ZoneKind::layer:
      return "layer";
    case ZoneKind::module:
      return "module";
    case ZoneKind::op:
      break;
  }
  return "op";
}

void write_spans(Writer& writer, const Profile& profile) {
  const std::vector<Span> spans = profile.spans();
  std::vector<std::int64_t> open;  // ends of the spans that are not closed yet, the innermost last
  const auto close_until = [&](std::int64_t time) {
    for (; !open.empty() && open.back() <= time; open.pop_back())
      writer.add_event(open.back(),
                       Message().integer(event::type, event::end).integer(event::track, thread_track));
  };
  for (const Span& span : spans) {
    close_until(span.begin);
    Message begin;
    begin.integer(event::type, event::begin).integer(event::track, thread_track);
    begin.text(event::category, category(span.kind));
    begin.text(event::name, span.kind == ZoneKind::layer ? "layer " + std::to_string(span.layer)
                                                         : profile.name(span.name));
    const auto annotate = [&](std::string_view name, std::uint64_t value) {
      if (value > 0)
        begin.message(event::annotation,
                      Message().text(event::annotation_name, name).integer(event::annotation_uint, value));
    };
    annotate("bytes", span.bytes), annotate("flops", span.flops);
    writer.add_event(span.begin, begin);
    open.push_back(span.end);
  }
  close_until(std::int64_t{1} << 62);
}

void write_samples(Writer& writer, const Profile& profile) {
  std::vector<bool> described;
  for (const Sample& sample : profile.samples()) {
    const std::uint64_t track = first_counter_track + sample.name;
    if (described.size() <= sample.name) described.resize(sample.name + 1);
    if (!described[sample.name]) {
      described[sample.name] = true;
      writer.describe(Message()
                          .integer(descriptor::uuid, track)
                          .integer(descriptor::parent, process_track)
                          .text(descriptor::name, profile.name(sample.name))
                          .message(descriptor::counter, Message()));
    }
    writer.add_event(sample.time, Message()
                                      .integer(event::type, event::counter)
                                      .integer(event::track, track)
                                      .real(event::double_value, sample.value));
  }
}

}  // namespace

std::string perfetto_trace(const Profile& profile, std::string_view process) {
  Writer writer;
  writer.describe(Message()
                      .integer(descriptor::uuid, process_track)
                      .message(descriptor::process, Message()
                                                        .integer(descriptor::process_pid, process_id)
                                                        .text(descriptor::process_name, process)));
  writer.describe(Message()
                      .integer(descriptor::uuid, thread_track)
                      .integer(descriptor::parent, process_track)
                      .message(descriptor::thread, Message()
                                                       .integer(descriptor::thread_pid, process_id)
                                                       .integer(descriptor::thread_tid, process_id)
                                                       .text(descriptor::thread_name, "steps")));
  write_spans(writer, profile);
  write_samples(writer, profile);
  return writer.bytes();
}

}  // namespace ttt::inline v2::perf
