import { describeModes } from "./mode-suite.js";
import { describeXattrs } from "./xattr-suite.js";

describeXattrs("this kernel");
describeModes("this kernel");
