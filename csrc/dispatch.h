// Which instruction set runs.
#pragma once
#include "kernel_table.h"

namespace headwise {

// The active ISA's kernels, or null when HEADWISE_ISA names one that cannot run here.
const KernelTable* active_kernels();

}  // namespace headwise
