#include "ttt/model/hyper_block.h"

#include <nlohmann/json.hpp>

namespace ttt::inline v2 {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* attn_part = "attn_hyper";
constexpr const char* ffn_part = "ffn_hyper";
constexpr const char* head_part = "head_hyper";

HyperConnection connection(const BuildContext& c, HyperConnectionSpec spec, const std::string& part) {
  spec.head = part == head_part;
  return HyperConnection::from_config({.spec = spec,
                                       .weight = c.weight(part + ".weight"),
                                       .base = c.weight(part + ".base"),
                                       .scale = c.weight(part + ".scale"),
                                       .name = c.name / part},
                                      c.target, c.home);
}

class HyperBlock final : public Block {
 public:
  HyperBlock(const BuildContext& c, const HyperConnectionSpec& spec, const Json& p)
      : streams_(spec.streams),
        first_(c.name.layer == 0),
        attn_hyper_(connection(c, spec, attn_part)),
        ffn_hyper_(connection(c, spec, ffn_part)),
        attn_norm_(c.rms_norm("attn_norm")),
        ffn_norm_(c.rms_norm("ffn_norm")),
        mixer_(c.mixer(parse_mixer(p.at("mixer").dump()), "attn")),
        ffn_(c.ffn(parse_ffn(p.at("ffn").dump()), "ffn")) {
    if (p.at("last").get<bool>()) head_.emplace(connection(c, spec, head_part));
  }
  Tensor forward(const Tensor& x, const Step& step) const override {
    Tensor s = first_ ? spread_streams(x, streams_) : x;
    const HyperConnection::Read a = attn_hyper_.read(s);
    s = attn_hyper_.write(mixer_->forward(normed(attn_norm_, a), step), a, s);
    const HyperConnection::Read f = ffn_hyper_.read(s);
    s = ffn_hyper_.write(ffn_->forward(normed(ffn_norm_, f), step), f, s);
    return head_ ? ops::typecast(head_->read(s).x, head_->plan().dtype) : s;
  }
  void print(PlanRows& rows) const override {
    ttt::print(attn_hyper_.plan(), rows), ttt::print(attn_norm_.plan(), rows), mixer_->print(rows);
    ttt::print(ffn_hyper_.plan(), rows), ttt::print(ffn_norm_.plan(), rows), ffn_->print(rows);
    if (head_) ttt::print(head_->plan(), rows);
  }

 private:
  // What is read is rounded once, behind its norm.
  Tensor normed(const RmsNorm& norm, const HyperConnection::Read& read) const {
    return ops::typecast(norm.forward(read.x), attn_hyper_.plan().dtype);
  }

  std::int64_t streams_;
  bool first_;
  HyperConnection attn_hyper_, ffn_hyper_;
  RmsNorm attn_norm_, ffn_norm_;
  std::unique_ptr<Mixer> mixer_;
  std::unique_ptr<FeedForward> ffn_;
  std::optional<HyperConnection> head_;
};

}  // namespace

CustomSpec hyper_block(const HyperConnectionSpec& spec, const MixerSpec& mixer, const FfnSpec& ffn, int dim,
                       bool last) {
  CustomSpec s{.name = hyper_block_name, .state = state_slots(mixer, dim)};
  s.parameters = Json{{"streams", spec.streams},
                      {"eps", spec.eps},
                      {"norm_eps", spec.norm_eps},
                      {"magnitude", spec.magnitude},
                      {"post_eps", spec.post_eps},
                      {"sinkhorn_iterations", spec.sinkhorn_iterations},
                      {"last", last},
                      {"mixer", Json::parse(to_json(mixer))},
                      {"ffn", Json::parse(to_json(ffn))}}
                     .dump();
  s.caches = kv_caches(LayerSpec{.mixer = mixer, .ffn = ffn});
  for (const char* norm : {"attn_norm", "ffn_norm"}) s.weights.push_back(vector_slot(norm, dim));
  for (const std::string part : {attn_part, ffn_part, head_part}) {
    HyperConnectionSpec own = spec;
    own.head = part == head_part;
    if (own.head && !last) continue;
    s.weights.push_back(table_slot(part + ".weight", own.outputs(), std::int64_t{spec.streams} * dim));
    s.weights.push_back(vector_slot(part + ".base", own.outputs()));
    s.weights.push_back(vector_slot(part + ".scale", own.scales()));
  }
  for (WeightSlot& slot : weight_slots(mixer, dim, "attn")) s.weights.push_back(std::move(slot));
  for (WeightSlot& slot : weight_slots(ffn, dim, "ffn")) s.weights.push_back(std::move(slot));
  return s;
}

std::unique_ptr<Block> make_hyper_block(const BuildContext& c, std::string_view parameters) {
  Json p;
  HyperConnectionSpec spec;
  try {
    p = Json::parse(parameters);
    spec = {.streams = p.at("streams").get<int>(),
            .eps = p.at("eps").get<float>(),
            .norm_eps = p.at("norm_eps").get<float>(),
            .magnitude = p.at("magnitude").get<float>(),
            .post_eps = p.at("post_eps").get<float>(),
            .sinkhorn_iterations = p.at("sinkhorn_iterations").get<int>()};
  } catch (const Json::exception&) {
    throw Error("parameters that are not those of hyper_block()", c.name.path,
                "make the layer by hyper_block()");
  }
  return std::make_unique<HyperBlock>(c, spec, p);
}

}  // namespace ttt::inline v2
