// Four 8-bit integers, neighbours: multiplied by four others and summed in one step.
#pragma once
#include <stdint.h>

namespace {

struct int8_quad {
  uint32_t bytes;  // the first is the lowest
};

}  // namespace
