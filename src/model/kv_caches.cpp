#include "ttt/model/spec.h"

namespace ttt::inline v2 {

KvCacheSpec kv_cache(const AttentionSpec& s) {
  return {.kv_heads = s.kv_heads,
          .head_dim = s.head_dim,
          .v_head_dim = s.v_head_dim > 0 ? s.v_head_dim : s.head_dim,
          .window = s.window};
}
KvCacheSpec kv_cache(const LatentAttentionSpec& s) {
  return {.kv_heads = 1,
          .head_dim = s.kv_lora_rank + s.rope_dim,
          .indexer_dim = s.indexer ? s.indexer->head_dim : 0,
          .window = s.window};
}

std::vector<KvCacheSpec> kv_caches(const LayerSpec& layer) {
  if (layer.block) return layer.block->caches;
  if (const auto* attention = std::get_if<AttentionSpec>(&layer.mixer))
    return attention->kv_of_layer ? std::vector<KvCacheSpec>{} : std::vector{kv_cache(*attention)};
  if (const auto* latent = std::get_if<LatentAttentionSpec>(&layer.mixer)) return {kv_cache(*latent)};
  const auto* custom = std::get_if<CustomSpec>(&layer.mixer);
  return custom != nullptr ? custom->caches : std::vector<KvCacheSpec>{};
}

}  // namespace ttt::inline v2
