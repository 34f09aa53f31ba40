/** The completion scripts. They only ask `varve __complete`, so that they need no change with varve. */

/** Shells that there is a script for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** One of them. */
export type Shell = (typeof SHELLS)[number];

const BASH = `# bash completion for varve; needs bash 4.
_varve() {
  local line=\${COMP_LINE:0:COMP_POINT} current candidate paths=
  local -a words
  # Split by ourselves: bash takes "name:tag" and "--flag=value" apart.
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  current=\${words[-1]}
  COMPREPLY=()
  while IFS=$'\\t' read -r candidate _; do
    case $candidate in
      :files) paths=files ;;
      :dirs) paths=dirs ;;
      *) COMPREPLY+=("$candidate") ;;
    esac
  done < <("\${words[0]}" __complete "\${words[@]:1}" 2> /dev/null)
  # Bash replaces only what follows the last ":" or "=".
  local prefix=\${current%"\${current##*[:=]}"}
  if [[ -n $prefix ]]; then
    COMPREPLY=("\${COMPREPLY[@]#"$prefix"}")
    current=\${current#"$prefix"}
  fi
  if [[ -n $paths ]]; then
    compopt -o filenames
    [[ $paths == dirs ]] && mapfile -t COMPREPLY < <(compgen -d -- "$current")
    [[ $paths == files ]] && mapfile -t COMPREPLY < <(compgen -f -- "$current")
  elif [[ \${#COMPREPLY[@]} -eq 1 && \${COMPREPLY[0]} == *= ]]; then
    compopt -o nospace
  fi
}
complete -F _varve varve
`;

const ZSH = `#compdef varve
# zsh completion for varve.
_varve() {
  local line value description paths=
  local -a candidates
  for line in "\${(@f)$("\${words[1]}" __complete "\${(@)words[2,CURRENT]}" 2> /dev/null)}"; do
    case $line in
      '') ;;
      :files) paths=files ;;
      :dirs) paths=dirs ;;
      *)
        value=\${line%%$'\\t'*}
        description=\${line#*$'\\t'}
        candidates+=("\${value//:/\\\\:}:$description")
        ;;
    esac
  done
  (( \${#candidates} )) && _describe varve candidates
  [[ $paths == files ]] && _files
  [[ $paths == dirs ]] && _files -/
  return 0
}
if [[ \${funcstack[1]:-} == _varve ]]; then
  _varve "$@"
else
  compdef _varve varve
fi
`;

const FISH = `# fish completion for varve.
function __varve_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path "$current"
            case ':dirs'
                __fish_complete_directories "$current"
            case '*'
                echo $line
        end
    end
end
complete -c varve -f -a '(__varve_complete)'
`;

const SCRIPTS: Readonly<Record<Shell, string>> = { bash: BASH, zsh: ZSH, fish: FISH };

/** The completion script of a shell, ending in a newline. */
export function completionScript(shell: Shell): string {
  return SCRIPTS[shell];
}
