/** Words, times and sizes as people read them. */
export {
  currentLanguage,
  type Language,
  languages,
  onLanguage,
  restoreLanguage,
  setLanguage,
  t,
  useLanguage,
} from "./language";
export { formatDay, formatFull, formatNames, formatPercent, formatShort, formatSize, formatTime } from "./format";
